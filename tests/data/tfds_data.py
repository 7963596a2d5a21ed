"""Prepared TensorFlow data sets, small, for tests."""

import pytest


def write_tfds(folder, name, features, splits):
    """Writes `name` (NAME/CONFIG) into a data folder.

    Args:
      folder: the data folder.
      name: of the data set.
      features: from the library to its features.
      splits: by name, the examples.
    """
    tf = pytest.importorskip("tensorflow")
    tfds = pytest.importorskip("tensorflow_datasets")
    features = tfds.features.FeaturesDict(features(tfds.features))
    prepared = folder / name / "1.0.0"
    prepared.mkdir(parents=True)
    short = name.split("/")[0]
    template = tfds.core.ShardedFileTemplate(
        data_dir=prepared, dataset_name=short, filetype_suffix="tfrecord"
    )
    infos = []
    for split, examples in splits.items():
        path = prepared / f"{short}-{split}.tfrecord-00000-of-00001"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for example in examples:
                encoded = features.encode_example(example)
                writer.write(features.serialize_example(encoded))
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[len(examples)],
                num_bytes=path.stat().st_size,
                filename_template=template,
            )
        )
    tfds.folder_dataset.write_metadata(data_dir=prepared, features=features, split_infos=infos)
    return str(folder)
