import pytest

from medpixcl.data.identity import pair_images, pairing_name


class TestPairImages:
    def test_key_wins_over_name(self) -> None:
        assert pair_images(["a/1.png", "b/1.png"], ["b/1.png", "a/1.png"]) == {k: k for k in ("a/1.png", "b/1.png")}

    def test_ambiguous_name(self) -> None:
        with pytest.raises(ValueError, match="'1' stands for 2 predicted and 1 reference images"):
            pair_images(["a/1.png", "b/1.png"], ["c/1.png"])

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
