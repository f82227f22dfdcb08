import pytest

from medpixcl.data.identity import pair_images, pairing_name, telling_names, unique_stems


class TestPairImages:
    def test_key_wins_over_name(self) -> None:
        assert pair_images(["a/1.png", "b/1.png"], ["b/1.png", "a/1.png"]) == {k: k for k in ("a/1.png", "b/1.png")}

    def test_ambiguous_name(self) -> None:
        with pytest.raises(ValueError, match="'1' stands for 2 predicted and 1 reference images"):
            pair_images(["a/1.png", "b/1.png"], ["1.png"])
        with pytest.raises(ValueError, match="'1' stands for 1 predicted and 2 reference images"):
            pair_images(["1.png", "a/1.png"], ["a/1.png", "b/1.png"])

    def test_a_folder_is_never_ignored(self) -> None:
        assert pair_images(["p002/1.png"], ["p001/1.png"]) == {}
        assert pair_images(["x/p1/1.png", "2.png"], ["p1/1.nii.gz", "p2/1.png", "p3/2.png"]) == {
            "x/p1/1.png": "p1/1.nii.gz",
            "2.png": "p3/2.png",
        }

    def test_composed_and_decomposed_letters_are_one(self) -> None:
        assert pair_images(["M\u00fcller.png"], ["Mu\u0308ller.png"]) == {"M\u00fcller.png": "Mu\u0308ller.png"}

    def test_repeated_name_without_partner_is_no_problem(self) -> None:
        assert pair_images(["a/1.png", "b/1.png"], ["2.png"]) == {}

    @pytest.mark.parametrize(
        ("key", "name"),
        [
            ("C:\\scans\\a.nii.gz", "a"),
            ("1.2.840.113", "1.2.840.113"),
            ("case.v2.png", "case.v2"),
            (".hidden", ".hidden"),
        ],
    )
    def test_pairing_name(self, key: str, name: str) -> None:
        assert pairing_name(key) == name


class TestTellingNames:
    def test_only_the_folders_that_are_needed(self) -> None:
        """A folder may carry a person's name: none where the file name tells the images apart."""
        assert list(telling_names(["/data/jane/a.png", "/data/john/b.png"]).values()) == ["a.png", "b.png"]
        paths = ["/s/p1/CT/1/a.png", "/s/p1/CT/2/a.png", "/s/p2/CT/1/a.png", "a.png", "C:\\x\\b.png"]
        shown = ["p1/CT/1/a.png", "2/a.png", "p2/CT/1/a.png", "a.png", "b.png"]
        assert list(telling_names(paths).values()) == shown

    @pytest.mark.parametrize("pair", [("p1/M\u00fcller.png", "p2/Mu\u0308ller.png"), ("p1/a.png", "p2/A.PNG")])
    def test_names_that_look_alike(self, pair: tuple[str, str]) -> None:
        first, second = telling_names(pair).values()
        assert (first[:3], second[:3]) == ("p1/", "p2/")

    def test_paths_that_differ_in_nothing_but_the_way(self) -> None:
        assert telling_names(["a/x.png", "../a/x.png"]) == {"a/x.png": "a/x.png", "../a/x.png": "../a/x.png"}


def test_a_number_is_no_other_images_name() -> None:
    names = ["b/1.png", "b/1.PNG", "b/1.PNG (2)"]
    assert len({name.casefold() for name in unique_stems(names).values()}) == 3
