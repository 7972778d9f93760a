from scanner.survey.status import WINDOW_S, Pace


def test_objects_and_tiles_a_second():
    now = [100.0]
    pace = Pace(lambda: now[0])
    pace.objects(50)
    pace.tile_done()
    now[0] += 10
    assert pace.now(under_way=0.5) == (5.0, 0.15)


def test_only_the_last_minutes_count():
    now = [0.0]
    pace = Pace(lambda: now[0])
    for _ in range(int(WINDOW_S)):
        now[0] += 1
        pace.objects(1000)
        pace.now(0.0)
    for _ in range(int(WINDOW_S)):
        now[0] += 1
        pace.objects(10)
        rate, _ = pace.now(0.0)
    assert rate == 10


def test_a_tile_that_has_to_begin_again_is_no_negative_pace():
    now = [0.0]
    pace = Pace(lambda: now[0])
    now[0] += 1
    pace.now(under_way=0.9)
    assert pace.now(under_way=0.0)[1] >= 0
