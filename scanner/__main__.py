"""``python -m scanner`` is the ``scanner`` command."""

from scanner.cli.main import main

if __name__ == "__main__":
    main()
