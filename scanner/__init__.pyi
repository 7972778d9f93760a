from scanner.interface.scan import plan, scan

__version__: str
__all__ = ["__version__", "plan", "scan"]
