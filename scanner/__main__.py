"""The ``scanner`` command, also as ``python -m scanner``."""

import signal


def main() -> None:
    """Run the command line and exit; Ctrl-C before that is ready ends the process without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from scanner.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
