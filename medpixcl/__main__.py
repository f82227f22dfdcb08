"""`python -m medpixcl`."""

from medpixcl.cli import main

if __name__ == "__main__":
    main()
