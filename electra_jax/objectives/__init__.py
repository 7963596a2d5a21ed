"""What is learnt.

An objective is told to the training step through five functions:

- `prepare(batch, key)`: draws what is random about the batch as a whole (positions,
  uniform numbers) and adds it to the batch's arrays, all of leading size B. It is done
  once for the global batch, so neither the mesh nor gradient accumulation changes it.
- `counts(prepared)`: by loss, how many terms the global batch has. They follow from the
  prepared batch alone, so every microbatch's gradient is at once on the right scale.
- `losses(params, prepared, key, step, train)`: by loss, the sum over a microbatch, and
  the metric sums, which add over microbatches, steps and hosts.
- `weights(step)`: by loss, its weight. The total is the sum of weight * loss sum / count.
- `summarise(sums)`: names and values of the metrics, from added-up metric sums.
"""
