from broker.embedded.supervisor import Pause


def test_the_pause_doubles_up_to_a_limit() -> None:
    pause = Pause()

    assert [pause.after(1.0) for _ in range(7)] == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]


def test_a_steady_run_starts_over_with_the_first_pause() -> None:
    pause = Pause()
    pause.after(1.0)
    pause.after(1.0)

    assert pause.after(60.0) == 0.5
