"""Values of the chart with one survey, q1."""

LIST = "s3://sky/tiles.txt"
OUT = "s3://runs/q1"
#: The survey's run folder and bundle lie on no volume.
LOCAL = {"persistence": {"data": {"enabled": False}}}


def survey(**differs):
    """Values with one survey, which says what ``differs`` from the defaults."""
    return {"surveys": {"q1": {"tileList": {"url": LIST}, "out": OUT, **differs}}}
