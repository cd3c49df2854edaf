"""``python -m app`` is ``logpost``."""

from app.cli import main

if __name__ == "__main__":
    main(prog_name="logpost")
