"""The lines of a run's log."""

from electra_jax.training.metrics import MetricsWriter, read_metrics


def test_lines_past_the_checkpoint_are_written_again(tmp_path):
    """And not twice: the run that is resumed reaches their steps once more."""
    for start, steps in ((0, (5, 10, 15)), (10, (15, 20))):
        with MetricsWriter(tmp_path, start) as writer:
            for step in steps:
                writer.write(step, 0.0, {"train/loss": start + step})
    lines = [(line["step"], line["train/loss"]) for line in read_metrics(tmp_path)]
    assert lines == [(5, 5), (10, 10), (15, 25), (20, 30)]
