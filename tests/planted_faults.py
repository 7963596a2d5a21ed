"""Faults that the tests must catch: planted one at a time in a copy of the checkout.

    python tests/planted_faults.py            all of them
    python tests/planted_faults.py NAME ...   only these
    python tests/planted_faults.py --list     their names, by what they break

Each fault is a slip that raises no error and that only a test can notice. Before a test is made
quicker or merged into another, and after, this command shows that nothing is missed.
"""

import argparse
import difflib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent


class Fault(NamedTuple):
    """A replacement in one file, and the test that must fail with it."""

    name: str
    file: str
    old: str  # occurs exactly once in the file
    new: str
    test: str  # pytest node id


# fmt: off
FAULTS = {
    "masking": [
        Fault("special-tokens-are-masked", "electra_jax/objectives/masking.py",
            "candidates_BL &= tokens_BL != token",
            "candidates_BL &= tokens_BL != special.pad",
            "tests/objectives/test_masking.py"
            "::test_positions_are_distinct_candidates_in_the_right_number"),
        Fault("mask-rate-of-padding", "electra_jax/objectives/masking.py",
            "jnp.round(rate * real_BL.sum(axis=1))",
            "jnp.round(rate * tokens_BL.shape[1])",
            "tests/objectives/test_masking.py"
            "::test_positions_are_distinct_candidates_in_the_right_number"),
        Fault("most-chosen-tokens-stay", "electra_jax/objectives/masking.py",
            "< KEPT_SHARE",
            "> KEPT_SHARE",
            "tests/objectives/test_masking.py::test_most_are_masked_and_the_rest_keep_their_token"),
    ],
    "sampling": [
        Fault("likeliest-token-for-a-sample", "electra_jax/models/vocabulary.py",
            "block_P * BLOCK + index_P",
            "jnp.argmax(weights_PT, axis=-1)",
            "tests/models/test_vocabulary.py::test_samples_follow_the_softmax"),
        Fault("temperature-inverted", "electra_jax/models/vocabulary.py",
            "logits_PT / temperature",
            "logits_PT * temperature",
            "tests/models/test_vocabulary.py::test_samples_follow_the_softmax"),
        Fault("correct-sample-counts-as-replaced", "electra_jax/objectives/replacement.py",
            "return corrupted_BL, corrupted_BL != tokens_BL",
            "return corrupted_BL, masking.chosen(masked, tokens_BL.shape[1])",
            "tests/objectives/test_replacement.py"
            "::test_a_replacement_equal_to_the_original_counts_as_original"),
    ],
    "loss counts": [
        Fault("mean-instead-of-sum", "electra_jax/objectives/corruption.py",
            "return jnp.sum(losses_BN * weights_BN), sums",
            "return jnp.mean(losses_BN * weights_BN), sums",
            "tests/interop/test_parity.py::test_joint_loss_and_gradients_are_the_definition"),
        Fault("padding-is-detected", "electra_jax/objectives/replaced_token.py",
            'return prepared["documents"] > 0',
            'return prepared["documents"] >= 0',
            "tests/interop/test_parity.py::test_joint_loss_and_gradients_are_the_definition"),
        Fault("microbatches-are-averaged", "electra_jax/training/step.py",
            "(grads, metrics), _ = jax.lax.scan(add, zeros, (microbatches, keys))",
            "(grads, metrics), _ = jax.lax.scan(add, zeros, (microbatches, keys))\n"
            "    grads = jax.tree.map(lambda x: x / accumulate, grads)",
            "tests/training/test_step_arithmetic.py"
            "::test_gradients_of_microbatches_add_up_to_that_of_the_mean"),
    ],
    "packing": [
        Fault("packed-documents-share-a-number", "electra_jax/data/sampler.py",
            "number = 1 + np.arange(len(pieces)) - np.repeat(piece_first, counts)",
            "number = 1 + 0 * np.arange(len(pieces))",
            "tests/data/test_sampler.py::test_packed_rows_keep_the_contract"),
        Fault("document-lost-at-a-boundary", "electra_jax/data/rows.py",
            "documents[begin : begin + DOCUMENTS_AT_ONCE + 1]",
            "documents[begin : begin + DOCUMENTS_AT_ONCE]",
            "tests/data/test_sampler.py"
            "::test_documents_are_packed_alike_however_many_are_read_at_once"),
    ],
    "attention mask": [
        Fault("attention-crosses-documents", "electra_jax/models/attention_kernels.py",
            "query_documents_BQ[:, :, None] == key_documents_BS[:, None, :]",
            "(query_documents_BQ[:, :, None] > 0) == (key_documents_BS[:, None, :] > 0)",
            "tests/models/test_attention.py"
            "::test_mask_holds_document_borders_and_an_inclusive_window"),
        Fault("window-one-too-narrow", "electra_jax/models/attention_kernels.py",
            "jnp.abs(ahead_QS) <= window",
            "jnp.abs(ahead_QS) < window",
            "tests/models/test_attention.py"
            "::test_mask_holds_document_borders_and_an_inclusive_window"),
        Fault("blocks-of-a-window-are-shifted", "electra_jax/models/attention_kernels.py",
            "_ahead(size, 3 * size) - size,",
            "_ahead(size, 3 * size) - 2 * size,",
            "tests/models/test_attention.py"
            "::test_every_form_of_attention_agrees_with_the_dense_one"),
        Fault("gradient-of-attention-forgets-dropout", "electra_jax/models/attention_kernels.py",
            "_drop(_scores(gradient_BQNK, value_BSNK), dropout, dropout_key)",
            "_scores(gradient_BQNK, value_BSNK)",
            "tests/models/test_attention.py"
            "::test_the_gradient_is_the_one_that_jax_derives"),
    ],
    "rotary": [
        Fault("positions-run-on", "electra_jax/models/attention.py",
            "return index_L - jax.lax.cummax(jnp.where(starts_BL, index_L, 0), axis=1)",
            "return index_L + jnp.zeros_like(documents_BL)",
            "tests/models/test_attention.py::test_positions_restart_in_each_document"),
        Fault("neighbours-turn-instead-of-halves", "electra_jax/models/attention.py",
            "first, second = jnp.split(x_BLNK.astype(jnp.float32), 2, axis=-1)",
            "first, second = (x_BLNK.astype(jnp.float32)[..., side::2] for side in (0, 1))",
            "tests/models/test_attention.py::test_rotation_is_a_complex_product"),
        Fault("local-and-global-angles-swapped", "electra_jax/models/encoder.py",
            "GLOBAL_THETA if self.window is None else LOCAL_THETA",
            "LOCAL_THETA if self.window is None else GLOBAL_THETA",
            "tests/interop/test_parity.py::test_networks_are_those_of_transformers[modern]"),
    ],
    "norms": [
        Fault("epsilon-of-another-norm", "electra_jax/models/encoder.py",
            'Architecture(True, False, True, True, 1e-5, True, "mean")',
            'Architecture(True, False, True, True, 1e-6, True, "mean")',
            "tests/models/test_encoder.py::test_every_norm_has_the_epsilon_of_its_architecture"),
        Fault("norm-without-the-mean", "electra_jax/models/norm.py",
            "centred = wide - mean",
            "centred = wide",
            "tests/models/test_norm.py::test_value_and_gradients_are_those_of_the_formula"),
    ],
    "model": [
        Fault("generator-as-deep-as-wide", "electra_jax/models/electra.py",
            "layers=max(1, round(model.layers * generator.depth))",
            "layers=max(1, round(model.layers * generator.width))",
            "tests/models/test_electra.py::test_generator_shape_follows_its_shares"),
        Fault("generator-tied-to-the-wrong-embeddings", "electra_jax/models/electra.py",
            "rows = (x_BLE, embeddings.word, documents_BL",
            "rows = (x_BLE, self.embeddings.word, documents_BL",
            "tests/models/test_electra.py"
            "::test_generator_reads_and_ties_to_its_own_embeddings[nothing]"),
        Fault("dropout-in-evaluation", "electra_jax/training/step.py",
            "objective.losses(params, prepared, None, jnp.zeros((), jnp.int32), False)",
            "objective.losses(params, prepared, key, jnp.zeros((), jnp.int32), True)",
            "tests/training/test_step_arithmetic.py::test_an_evaluation_is_without_dropout"),
    ],
    "optimizer": [
        Fault("decay-of-norms", "electra_jax/training/optimizer.py",
            'not in ("bias", "scale")',
            'not in ("bias", "norm")',
            "tests/training/test_optimizer.py::test_adamw_is_the_official_one"),
        Fault("bias-is-corrected", "electra_jax/training/optimizer.py",
            "if config.bias_correction else",
            "if not config.bias_correction else",
            "tests/training/test_optimizer.py::test_adamw_is_the_official_one"),
        Fault("top-layer-decayed-as-the-head", "electra_jax/finetuning/objective.py",
            "return decay ** (layers + 1 - int(",
            "return decay ** (layers - 1 - int(",
            "tests/tasks/test_figures.py::test_layers_learn_slower_the_deeper_they_lie"),
    ],
    "clip": [
        Fault("clip-of-each-array", "electra_jax/training/optimizer.py",
            "optax.clip_by_global_norm(config.clip)",
            "optax.clip_by_block_rms(config.clip)",
            "tests/training/test_optimizer.py::test_adamw_is_the_official_one"),
    ],
    "schedule": [
        Fault("warm-up-one-step-early", "electra_jax/training/optimizer.py",
            "xp.minimum(1.0, step / max(",
            "xp.minimum(1.0, (step + 1) / max(",
            "tests/training/test_optimizer.py::test_schedules"),
        Fault("decay-over-half-a-run", "electra_jax/training/loop.py",
            "if budget else step / self.steps",
            "if budget else step / (2 * self.steps)",
            "tests/training/test_loop.py::test_schedule_and_batches_follow_the_step"),
    ],
    "resume": [
        Fault("metric-sums-forgotten", "electra_jax/training/checkpoint.py",
            "return Restored(state,",
            "return Restored(state.reset_metrics(),",
            "tests/training/test_checkpoint.py::test_a_state_comes_back_whole"),
        Fault("elapsed-time-forgotten", "electra_jax/training/program.py",
            'restored.state, restored.record["elapsed"]',
            "restored.state, 0.0",
            "tests/pretraining/test_pretrain.py::test_the_clock_of_a_resumed_run_has_the_time_spent"),
        Fault("batches-from-the-start", "electra_jax/training/loop.py",
            "batches = self.batches(step)",
            "batches = self.batches(0)",
            "tests/training/test_loop.py::test_schedule_and_batches_follow_the_step"),
        Fault("lines-of-the-log-twice", "electra_jax/training/metrics.py",
            'line.content["step"] <= step',
            'line.content["step"] >= 0',
            "tests/training/test_metrics_log.py::test_lines_past_the_checkpoint_are_written_again"),
        Fault("worst-checkpoint-is-the-best", "electra_jax/training/records.py",
            "else -value if maximise else value",
            "else value if maximise else -value",
            "tests/training/test_checkpoint.py::test_the_best_is_kept_beside_the_last"),
    ],
    "damage": [
        Fault("digests-are-not-compared", "electra_jax/training/records.py",
            "if inspection.digest != expected[name])",
            "if False)",
            "tests/training/test_checkpoint.py"
            "::test_an_array_with_a_flipped_bit_makes_way_for_the_checkpoint_before"),
        Fault("one-checkpoint-is-kept", "electra_jax/training/checkpoint.py",
            "if len(kept) < 2:",
            "if len(kept) < 1:",
            "tests/training/test_checkpoint.py"
            "::test_a_run_has_a_checkpoint_to_fall_back_to_though_the_best_is_the_last"),
        Fault("positions-do-not-count", "electra_jax/training/digests.py",
            "first = (word ^ position) * u(FIRST)",
            "first = word * u(FIRST)",
            "tests/training/test_digests.py::test_places_signs_of_zeros_and_payloads_count"),
        Fault("skipped-steps-change-parameters", "electra_jax/training/step.py",
            "jnp.where(finite, new, old)",
            "jnp.where(finite, new, new)",
            "tests/training/test_loop.py::test_a_step_that_is_not_finite_is_skipped_and_counted"),
    ],
    "writing and ending": [
        Fault("another-hosts-lock-is-taken", "electra_jax/system/locks.py",
            "if holder and _is_alive(holder, file, locked):",
            "if holder and not locked and _is_alive(holder, file, locked):",
            "tests/system/test_locks.py"
            "::test_the_lock_of_another_host_is_taken_once_it_is_touched_no_more"),
        Fault("a-child-keeps-the-lock", "electra_jax/system/locks.py",
            "fcntl.lockf(descriptor,",
            "fcntl.flock(descriptor,",
            "tests/system/test_locks.py::test_a_child_that_outlives_its_parent_does_not_keep_the_lock"),
        Fault("a-link-passes-for-our-mark", "electra_jax/system/atomic_files.py",
            "return stat.S_ISREG(os.lstat(folder / MARK).st_mode)",
            "return (folder / MARK).is_file()",
            "tests/system/test_atomic_files.py"
            "::test_nothing_that_is_somebody_elses_is_removed_or_followed"),
        Fault("what-is-last-is-moved-first", "electra_jax/system/atomic_files.py",
            "key=lambda name: (name == last, name)",
            "key=lambda name: (name != last, name)",
            "tests/system/test_atomic_files.py"
            "::test_where_a_folder_cannot_be_renamed_it_is_filled_and_the_last_comes_last"),
        Fault("native-code-is-waited-for", "electra_jax/system/ending.py",
            "if time.monotonic() >= deadline:",
            "if not time.monotonic():",
            "tests/faults/test_signals.py::test_native_code_is_interrupted_and_leaves_nothing"),
        Fault("tensorboard-is-tried-again-and-again", "electra_jax/training/event_file.py",
            "records, self._records = self._records, None",
            "records = None",
            "tests/training/test_metrics_log.py"
            "::test_tensorboard_that_fails_is_given_up_and_nothing_waits_for_it"),
        Fault("a-full-disk-leaves-half-a-line", "electra_jax/training/metrics.py",
            "os.ftruncate(self._descriptor, self._size)",
            "os.fsync(self._descriptor)",
            "tests/training/test_metrics_log.py::test_lines_wait_for_a_full_disk"),
    ],
    "order over hosts": [
        Fault("same-order-every-epoch", "electra_jax/data/sampler.py",
            "fold(self._seed, int(source), int(epoch))",
            "fold(self._seed, int(source), 0)",
            "tests/data/test_sampler.py::test_every_token_is_seen_once_an_epoch"),
        Fault("batch-of-a-host-taken-for-the-global-one", "electra_jax/data/sampler.py",
            "step * self.batch_size + self._mine(rows)",
            "step * len(self._mine(rows)) + self._mine(rows)",
            "tests/data/test_sampler.py::test_hosts_together_hold_the_batch_of_one"),
        Fault("rows-by-process-and-not-by-device", "electra_jax/parallel/mesh.py",
            "np.arange(count)[index] for index in indices.values()",
            "np.arange(count)[: len(indices) * count // mesh.size] for _ in indices",
            "tests/parallel/test_mesh.py::test_a_process_reads_the_rows_that_its_devices_hold"),
        Fault("examples-in-the-same-order-every-epoch", "electra_jax/data/examples.py",
            "np.random.default_rng([self._seed, epoch])",
            "np.random.default_rng([self._seed, 0])",
            "tests/data/test_examples.py::test_epochs_and_seeds_have_orders_of_their_own"),
    ],
    "sharding": [
        Fault("matrices-without-a-rule", "electra_jax/placement.py",
            '(r"(output|narrow)/kernel$", PartitionSpec("tensor", "fsdp")),',
            '(r"(output|narrow)/kernel$", PartitionSpec()),',
            "tests/pretraining/test_program.py::test_every_large_array_is_placed_by_a_rule"),
        Fault("optimizer-state-on-every-device", "electra_jax/parallel/partition.py",
            "re.search(pattern, name)",
            "re.match(pattern, name)",
            "tests/parallel/test_mesh.py::test_arrays_are_placed_by_the_rule_of_their_path"),
    ],
    "tokenizer": [
        Fault("case-is-kept", "electra_jax/data/tokenizer_state.py",
            "lowercase=lower_case,",
            "lowercase=False,",
            "tests/data/test_tokenizer.py::test_wordpiece_follows_bert"),
        Fault("continuation-inverted", "electra_jax/data/tokenizer_state.py",
            "piece.startswith(prefix) for piece in",
            "not piece.startswith(prefix) for piece in",
            "tests/data/test_tokenizer.py::test_continuation_tells_whole_words"),
        Fault("unknown-words-become-masks", "electra_jax/data/tokenizer_state.py",
            "unk_token=unknown",
            'unk_token="[MASK]"',
            "tests/data/test_tokenizer.py::test_wordpiece_follows_bert"),
        Fault("spaces-are-no-part-of-words", "electra_jax/data/tokenizer.py",
            "bisect.bisect_right(spaces, last)",
            "bisect.bisect_left(spaces, last)",
            "tests/data/test_tokenizer_files.py::"
            "test_a_normalizer_that_reaches_over_spaces_is_left_to_the_library"),
        Fault("text-spells-special-tokens", "electra_jax/data/tokenizer.py",
            "encode_special_tokens = True",
            "encode_special_tokens = False",
            "tests/data/test_tokenizer_ids.py::test_text_never_becomes_a_special_token"),
    ],
    "readers": [
        Fault("last-document-dropped", "electra_jax/data/text_files.py",
            '    if lines:\n        yield "\\n".join(lines), consumed\n',
            "",
            "tests/data/test_documents.py"
            "::test_text_and_json_lines_read_alike_in_every_compression"),
        Fault("first-row-taken-for-a-header", "electra_jax/data/labelled.py",
            "is_header = not named or bool(set(named) & set(header))",
            "is_header = True",
            "tests/data/test_labelled.py"
            "::test_named_columns_stand_in_for_a_header_that_may_be_there"),
        Fault("quotes-join-lines-of-tsv", "electra_jax/data/labelled.py",
            'line.split("\\t") if line else []',
            'next(csv.reader([line], delimiter="\\t")) if line else []',
            "tests/data/test_labelled.py::test_a_quote_in_tsv_is_a_character"),
        Fault("damaged-stream-ends-the-file", "electra_jax/data/compression.py",
            "self._input = self._stream.unused_data + self._input",
            'self._input = b""',
            "tests/data/test_documents.py"
            "::test_concatenated_compressed_streams_are_read_to_the_end"),
        Fault("content-is-not-compared", "electra_jax/data/token_store.py",
            "unknown = CONTENT_KEYS - before.keys()",
            "unknown = CONTENT_KEYS",
            "tests/data/test_token_store.py::test_text_changed_in_place_is_noticed"),
        Fault("minus-one-is-the-last-class", "electra_jax/data/parquet_files.py",
            "if 0 <= value < len(names) else None",
            "if value < len(names) else None",
            "tests/data/test_labelled.py"
            "::test_parquet_has_the_names_of_classes_and_no_numbers_that_are_none"),
    ],
    "metrics": [
        Fault("auc-of-the-other-class", "electra_jax/objectives/metrics.py",
            "below = np.cumsum(negative) - negative / 2",
            "below = negative.sum() - np.cumsum(negative) + negative / 2",
            "tests/objectives/test_replaced_token.py"
            "::test_auc_is_one_where_all_replaced_tokens_score_higher"),
        Fault("f1-of-the-negative-label", "electra_jax/tasks/classification.py",
            "self.config.positive or self.labels[-1]",
            "self.config.positive or self.labels[0]",
            "tests/tasks/test_figures.py::test_labels_are_judged_as_by_hand"),
        Fault("kappa-for-matthews", "electra_jax/tasks/classification.py",
            "sklearn_metrics.matthews_corrcoef(truth, guesses)",
            "sklearn_metrics.cohen_kappa_score(truth, guesses)",
            "tests/tasks/test_figures.py::test_labels_are_judged_as_by_hand"),
        Fault("correlations-swapped", "electra_jax/tasks/classification.py",
            '"spearman": float(scipy.stats.spearmanr(guesses, truth)',
            '"spearman": float(scipy.stats.pearsonr(guesses, truth)',
            "tests/tasks/test_figures.py::test_numbers_are_judged_as_by_hand"),
        Fault("repeated-words-count-once", "electra_jax/tasks/answer_metrics.py",
            "sum((collections.Counter(ours) & collections.Counter(theirs)).values())",
            "len(set(ours) & set(theirs))",
            "tests/tasks/test_figures.py::test_answers_are_judged_as_the_official_evaluation_does"),
        Fault("f1-that-is-exact-match", "electra_jax/tasks/answer_metrics.py",
            "space_out(normalise_answer(text)).split()",
            "normalise_answer(text).split()",
            "tests/tasks/test_questions.py"
            "::test_f1_counts_characters_where_words_have_no_spaces"),
        Fault("f1-that-is-accuracy", "electra_jax/tasks/tagging.py",
            'if self.state["scheme"] != "none":  # without',
            'if self.state["scheme"]:  # without',
            "tests/tasks/test_label_schemes.py::test_what_has_no_spans_has_no_f1"),
        Fault("rouge-of-ascii", "electra_jax/tasks/summarization.py",
            "if text.isascii():\n            return tokenize",
            "if text:\n            return tokenize",
            "tests/tasks/test_summaries.py::test_rouge_counts_words_of_any_script"),
        Fault("nothing-shared-and-yet-found", "electra_jax/tasks/ranking.py",
            " if score > 0]",
            "]",
            "tests/tasks/test_ranking.py::test_a_document_that_shares_no_word_is_not_found"),
    ],
    "written files": [
        Fault("runs-end-in-carriage-returns", "electra_jax/data/collection.py",
            'newline="\\n"',
            'newline="\\r\\n"',
            "tests/data/test_collection.py::test_a_run_has_six_fields_a_line"),
        Fault("spaces-in-identifiers", "electra_jax/data/collection.py",
            'return re.sub(r"\\s", lambda space: quote(space[0]), id)',
            "return id",
            "tests/data/test_collection.py::test_a_run_has_six_fields_a_line"),
        Fault("tabs-in-labels", "electra_jax/tasks/classification.py",
            "{one_cell(text)}",
            "{text}",
            "tests/tasks/test_written_files.py::test_a_submission_has_no_quotes_or_escapes"),
        Fault("blank-words-in-conll", "electra_jax/tasks/tagging.py",
            'return "_"',
            "return cell",
            "tests/tasks/test_written_files.py::test_tags_are_read_back"),
    ],
    "scores of sentences": [
        Fault("a-scored-token-is-read", "electra_jax/objectives/masked_lm.py",
            "jnp.full_like(masked.positions_BN, self.special.mask)",
            'masking.take(batch["tokens"], masked)',
            "tests/inference/test_scoring.py"
            "::test_a_score_is_the_sum_over_tokens_however_it_is_batched[mlm]"),
        Fault("special-tokens-are-scored", "electra_jax/inference/scoring.py",
            '(rows["tokens"] != special.cls) & (rows["tokens"] != special.sep)',
            'rows["tokens"] != special.pad',
            "tests/inference/test_scoring.py"
            "::test_a_score_is_the_sum_over_tokens_however_it_is_batched[electra]"),
        Fault("sentences-of-another-order", "electra_jax/inference/scoring.py",
            "rank[order] = np.arange(len(order))",
            "rank[:] = order",
            "tests/inference/test_scoring.py"
            "::test_a_score_is_the_sum_over_tokens_however_it_is_batched[electra]"),
        Fault("mean-over-pairs-for-paradigms", "electra_jax/inference/scoring.py",
            "return float(np.mean([group.accuracy for group in self.paradigms.values()]))",
            "return float(np.average([group.accuracy for group in self.paradigms.values()], "
            "weights=[group.pairs for group in self.paradigms.values()]))",
            "tests/inference/test_scoring.py::test_the_headline_is_the_mean_over_paradigms"),
    ],
    "tasks": [
        Fault("answers-lose-their-ends", "electra_jax/tasks/answer_spans.py",
            "return context[start:end]",
            "return context[int(starts[first]) : int(ends[last])]",
            "tests/tasks/test_questions.py::test_words_of_any_text_are_given_back_whole"),
        Fault("first-answer-alone", "electra_jax/tasks/question_answering.py",
            "in record.answers or []:",
            "in (record.answers or [])[:1]:",
            "tests/tasks/test_questions.py"
            "::test_any_of_several_answers_that_is_in_the_context_is_used"),
        Fault("no-key-for-no-answer", "electra_jax/data/labelled.py",
            '{"answers": question["answers"]} if "answers" in question else {}',
            '{"answers": question.get("answers", [])}',
            "tests/tasks/test_questions.py"
            "::test_a_question_without_answers_is_not_one_without_an_answer[True]"),
        Fault("questions-fill-their-rows", "electra_jax/tasks/question_answering.py",
            "min(self.config.question_length, max(0, length - 3) // 2)",
            "self.config.question_length",
            "tests/tasks/test_questions.py::test_one_long_question_is_cut_and_counted"),
        Fault("other-marks-are-kinds", "electra_jax/tasks/label_schemes.py",
            "if odd and (other := _other_marks(first)):",
            "if other := None:",
            "tests/tasks/test_label_schemes.py::test_other_marks_are_refused_by_name"),
        Fault("labels-at-last-pieces", "electra_jax/tasks/tagging.py",
            "firsts.append(len(tokens))",
            "firsts.append(len(tokens) + len(word) - 1)",
            "tests/tasks/test_records.py::test_a_word_s_label_stands_at_its_first_piece"),
        Fault("answers-off-by-their-spaces", "electra_jax/tasks/question_answering.py",
            "start += len(text) - len(text.lstrip())",
            "start += len(text) - len(text.strip())",
            "tests/tasks/test_records.py::test_every_answer_of_a_long_text_is_whole_in_a_row"),
        Fault("right-documents-as-negatives", "electra_jax/tasks/retrieval.py",
            "if numbers[id] not in known]",
            "if numbers[id]]",
            "tests/tasks/test_records.py::test_a_query_may_have_several_answers"),
        Fault("query-finds-itself", "electra_jax/tasks/ranking.py",
            "if not collection.is_itself(query, found[0])",
            "",
            "tests/tasks/test_records.py::test_a_document_that_is_the_query_is_no_find"),
    ],
    "export names": [
        Fault("query-and-key-swapped", "electra_jax/interop/names.py",
            'names += _dense(f"{ours}/{part}", f"{theirs}.attention.self.{part}")',
            'other = {"query": "key", "key": "query"}.get(part, part)\n'
            '            names += _dense(f"{ours}/{part}", f"{theirs}.attention.self.{other}")',
            "tests/interop/test_parity.py::test_joint_loss_and_gradients_are_the_definition"),
        Fault("detector-says-original", "electra_jax/interop/names.py",
            "arrays = [np.zeros_like(arrays[0]), *arrays]",
            "arrays = [*arrays, np.zeros_like(arrays[0])]",
            "tests/test_exchange.py::test_import_and_export_give_the_same_bytes[modern]"),
        Fault("gamma-and-beta-swapped", "electra_jax/interop/names.py",
            '.replace("/weight", "/gamma").replace("/bias", "/beta")',
            '.replace("/weight", "/beta").replace("/bias", "/gamma")',
            "tests/interop/test_tensorflow1.py::test_names_of_one_shape_are_not_mixed_up"),
        Fault("delta-left-out-of-the-export", "electra_jax/interop/names.py",
            'if "embedding_delta" in params:',
            'if "delta" in params:',
            "tests/test_exchange.py"
            "::test_disentangled_embeddings_leave_as_each_network_reads_them"),
    ],
}
# fmt: on


def copy_checkout(folder: Path) -> None:
    """Copies all files that are in git, or that it does not ignore, as they are now."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # and not deleted
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())


def run_tests(folder: Path, tests: Iterable[str]) -> tuple[int, str]:
    """Exit status and output of pytest, on tests that `make test` runs."""
    command = [sys.executable, "-m", "pytest", "-xq", "-p", "no:cacheprovider", "-m", "not full"]
    environment = {
        # Programs that were compiled before serve here too.
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "xla"),
        **os.environ,
        # Bytecode of a fault could be taken for that of the file restored within a second.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [*command, *tests], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout


def judge(status: int, output: str) -> tuple[bool, str]:
    """Whether a fault was caught, in words; an error in collecting tests catches nothing."""
    failed = [line for line in output.splitlines() if line.startswith("FAILED ")]
    if status == 1 and failed:
        return True, f"caught by {failed[0].removeprefix('FAILED ').split(' - ')[0]}"
    if status == 0:
        return False, "NOT caught"
    return False, f"BROKEN entry: pytest ended with status {status} and no failed test"


def plant(fault: Fault, folder: Path) -> tuple[bool, str]:
    """Runs a fault's test with the fault in place."""
    file = folder / fault.file
    before = file.read_text("utf-8")
    if before.count(fault.old) != 1:
        return False, f"BROKEN entry: {fault.file} has its text {before.count(fault.old)} times"
    file.write_text(before.replace(fault.old, fault.new), "utf-8")
    try:
        return judge(*run_tests(folder, [fault.test]))
    finally:
        file.write_text(before, "utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Plants faults that the tests must catch.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a fault; default: all")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    options = parser.parse_args(arguments)
    if options.list:
        for category, faults in FAULTS.items():
            print(category, *(f"  {fault.name}" for fault in faults), sep="\n")
        return 0
    known = {fault.name: fault for faults in FAULTS.values() for fault in faults}
    for name in options.names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            print(f"no fault is called {name}: did you mean {near}? (see --list)", file=sys.stderr)
            return 2
    faults = [known[name] for name in options.names or known]
    missed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_checkout(folder)
        start = time.monotonic()
        status, output = run_tests(folder, sorted({fault.test for fault in faults}))
        if status:
            print(output, f"the tests do not pass without a fault (status {status})", sep="\n")
            return 1
        print(f"{time.monotonic() - start:6.1f} s  all tests pass without a fault", flush=True)
        for fault in faults:
            start = time.monotonic()
            caught, words = plant(fault, folder)
            missed += not caught
            print(f"{time.monotonic() - start:6.1f} s  {fault.name}: {words}", flush=True)
    print(f"{len(faults) - missed} of {len(faults)} faults are caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
