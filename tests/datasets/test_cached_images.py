"""Images kept in memory: the same bytes, within limits, for all workers, whatever later transforms do."""

from __future__ import annotations

import copy
import logging
import multiprocessing
import os
import pickle
import time

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmengine.logging import MMLogger
from torch.utils.data import DataLoader, Dataset, Subset

from kd_det.datasets import LoadImageOnce
from kd_det.datasets.cached_images import SharedArrays, decoded_size, loading_steps, size_text
from kd_det.errors import ConfigError

SIZES = [(24, 32), (40, 20), (31, 33), (16, 48), (32, 32), (20, 20)]


@pytest.fixture
def paths(tmp_path):
    """Six pictures of several sizes and formats."""
    rng = np.random.default_rng(0)
    found = []
    for index, (height, width) in enumerate(SIZES):
        found.append(str(tmp_path / f'{index}.{"jpg" if index % 2 else "png"}'))
        cv2.imwrite(found[-1], rng.integers(0, 255, (height, width, 3), dtype=np.uint8))
    cv2.imwrite(found[4], rng.integers(0, 255, (32, 32, 4), dtype=np.uint8))  # with transparency
    return found


@pytest.fixture
def messages(caplog):
    """What is logged through mmengine."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, logger.name):
        yield lambda: [record.getMessage() for record in caplog.records]
    logger.removeHandler(caplog.handler)


def same(results, expected):
    assert results['img'].dtype == expected['img'].dtype
    np.testing.assert_array_equal(results['img'], expected['img'])
    assert results['img_shape'] == expected['img_shape'] and results['ori_shape'] == expected['ori_shape']


def forked(*tasks):
    """Run functions side by side in forked processes; their exit codes."""
    context = multiprocessing.get_context('fork')
    processes = [context.Process(target=task) for task in tasks]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode is not None, 'the process hangs'
    return [process.exitcode for process in processes]


@pytest.mark.parametrize(
    'options',
    [{}, dict(to_float32=True), dict(color_type='grayscale'), dict(color_type='unchanged'),
     dict(imdecode_backend='pillow')],
)  # fmt: skip
def test_the_same_bytes_as_mmcv(paths, options):
    plain, once = LoadImageFromFile(**options), LoadImageOnce(**options)
    expected = [plain(dict(img_path=path)) for path in paths]
    for turn in range(3):
        for path, image in zip(paths, expected):
            same(once(dict(img_path=path)), image)
        if turn == 0:
            for path in paths:
                os.unlink(path)
    assert len(once.images) == len(paths)


def test_later_transforms_cannot_spoil_what_is_kept(paths):
    once, expected = LoadImageOnce(), LoadImageFromFile()(dict(img_path=paths[0]))
    for _ in range(3):
        image = once(dict(img_path=paths[0]))['img']
        np.testing.assert_array_equal(image, expected['img'])
        assert image.flags.writeable and image.flags.owndata and image.flags.c_contiguous
        cv2.rectangle(image, (0, 0), (20, 20), (1, 2, 3), -1)
        image[...] = 255 - image


def test_no_more_bytes_than_allowed(paths, messages):
    sizes = [height * width * 3 for height, width in SIZES]
    once = LoadImageOnce(max_bytes=sum(sizes[:3]) + 4 * 192)
    for _ in range(2):
        for path in paths[:5]:
            once(dict(img_path=path))
    assert len(once.images) == 3 and sum(sizes[:3]) < once.images.used <= once.max_bytes
    for path in paths:
        os.unlink(path)
    for path in paths[:3]:
        once(dict(img_path=path))
    for path in paths[3:]:
        with pytest.raises(FileNotFoundError):
            once(dict(img_path=path))
    first, full = messages()
    assert 'the first takes 2.2 KiB, and 3 of its size are within the limits' in first
    assert 'LoadImageOnce is full: 3 images, ' in full and 'max_bytes=' in full  # once, not for each image


def test_a_picture_larger_than_the_limit_is_read_each_time(paths, messages):
    once = LoadImageOnce(max_bytes=100)
    expected = LoadImageFromFile()(dict(img_path=paths[0]))
    for _ in range(2):
        same(once(dict(img_path=paths[0])), expected)
    assert len(once.images) == once.images.used == 0 and len(messages()) == 1


def test_a_smaller_one_may_still_fit():
    store = SharedArrays(1024, 10)
    assert not store.put('large', np.zeros(1500, np.uint8))
    small = (np.arange(500) % 7).astype(np.uint8)
    assert store.put('small', small)
    assert store.get('large') is None
    np.testing.assert_array_equal(store.get('small'), small)


def test_missing_files(tmp_path):
    assert LoadImageOnce(ignore_empty=True)(dict(img_path=str(tmp_path / 'none.png'))) is None
    with pytest.raises(FileNotFoundError):
        LoadImageOnce()(dict(img_path=str(tmp_path / 'none.png')))


@pytest.mark.parametrize('key', ['max_images', 'max_bytes'])
@pytest.mark.parametrize('value', [0, -3, 2.5, True, '1'])
def test_limits_that_are_none(key, value):
    with pytest.raises(ConfigError, match=rf'LoadImageOnce\.{key}: found .*, expected a positive integer'):
        LoadImageOnce(**{key: value})


def test_a_limit_beyond_what_the_system_grants():
    with pytest.raises(ConfigError, match=r'LoadImageOnce\.max_bytes: found .* the system does not grant .* less'):
        LoadImageOnce(max_bytes=2**62)


# --- processes --------------------------------------------------------------------------------------------------------


class Images(Dataset):
    """Path by path through a transform, which it then spoils in place."""

    def __init__(self, paths, load):
        self.paths, self.load = paths, load

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        image = self.load(dict(img_path=self.paths[index]))['img']
        seen = image.tobytes()
        image[...] = 0
        return index, seen


@pytest.mark.parametrize('persistent', [True, False])
def test_what_one_worker_reads_all_have(paths, persistent):
    """The files go after the first epoch; in the second, every image comes to the other worker."""
    plain = LoadImageFromFile()
    expected = {index: plain(dict(img_path=path))['img'].tobytes() for index, path in enumerate(paths)}
    once = LoadImageOnce()
    order = list(range(len(paths)))
    loader = DataLoader(
        Images(paths, once), batch_size=None, sampler=order, num_workers=2, persistent_workers=persistent,
        multiprocessing_context='fork',
    )  # fmt: skip
    assert dict(iter(loader)) == expected
    for path in paths:
        os.unlink(path)
    order[:] = order[1:] + order[:1]
    assert dict(iter(loader)) == expected
    assert len(once.images) == len(paths)
    assert dict(Images(paths, once)[index] for index in range(len(paths))) == expected  # the parent has them, too


def test_writers_side_by_side_keep_each_array_once():
    store = SharedArrays(4 * 2**20, 1000)
    arrays = {f'ä/{i}': np.random.default_rng(i).integers(0, 255, (7 + i, 11), dtype=np.uint8) for i in range(120)}

    def write(seed):
        def task():
            for name in np.random.default_rng(seed).permutation(list(arrays)):
                assert store.put(str(name), arrays[str(name)])
                np.testing.assert_array_equal(store.get(str(name)), arrays[str(name)])

        return task

    assert forked(*(write(seed) for seed in range(4))) == [0] * 4
    assert len(store) == 120
    assert store.used == sum(-(-array.nbytes // 64) * 64 + 64 for array in arrays.values())
    for name, array in arrays.items():
        np.testing.assert_array_equal(store.get(name), array)


def test_a_number_is_kept_to_by_all_writers():
    store = SharedArrays(2**20, 9)

    def write(first):
        return lambda: [store.put(f'{i}', np.full(50, i, np.uint8)) for i in range(first, first + 8)]

    forked(write(0), write(8), write(16))
    assert len(store) == 9 and sum(store.get(f'{i}') is not None for i in range(24)) == 9


def test_a_process_that_dies_leaves_neither_a_lock_nor_half_an_array():
    store = SharedArrays(2**16, 10)
    store.put('before', np.ones(5))

    def die():
        with store._locked():
            store._bytes[int(store._state[0]) :] = 255  # half a record: it does not count yet
            os._exit(3)

    assert forked(die) == [3]
    start = time.monotonic()
    assert store.put('after', np.arange(6.0)) and time.monotonic() - start < 5
    np.testing.assert_array_equal(store.get('before'), np.ones(5))
    np.testing.assert_array_equal(store.get('after'), np.arange(6.0))
    assert len(store) == 2


def test_one_process_speaks_for_all():
    store, spoken = SharedArrays(100, 1), SharedArrays(2**12, 8)

    def ask(name):
        return lambda: store.first(0) and spoken.put(name, np.zeros(1))

    forked(ask('a'), ask('b'), ask('c'))
    assert len(spoken) == 1 and not store.first(0) and store.first(1)


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_have_memory_of_their_own(paths, duplicate):
    once = LoadImageOnce(max_images=2, max_bytes=10_000, to_float32=True)
    once(dict(img_path=paths[5]))
    other = duplicate(once)
    assert (len(once.images), len(other.images)) == (1, 0)
    assert (other.max_images, other.max_bytes, other.to_float32) == (2, 10_000, True)
    same(other(dict(img_path=paths[5])), once(dict(img_path=paths[5])))
    assert len(other.images) == 1 and repr(other) == repr(once)
    assert repr(once).endswith('max_images=2, max_bytes=10000)')


# --- estimates --------------------------------------------------------------------------------------------------------


def dataset(paths, load, sized):
    class Set(BaseDataset):
        def load_data_list(self):
            sizes = [dict(height=h, width=w) if sized else {} for h, w in SIZES]
            return [dict(img_path=path, **size) for path, size in zip(paths, sizes)]

    return Set(pipeline=[load])


@pytest.mark.parametrize('sized', [True, False])
@pytest.mark.parametrize(
    'options, factor', [({}, 3), (dict(to_float32=True), 12), (dict(color_type='grayscale'), 1)]
)  # fmt: skip
def test_the_estimate_is_what_the_store_takes(paths, sized, options, factor):
    """All six images are looked at here, so that it is exact."""
    once = LoadImageOnce(**options)
    data = dataset(paths, once, sized)
    assert decoded_size(data, once) == factor * sum(h * w for h, w in SIZES)
    total = sum(data[index]['img'].nbytes for index in range(len(data)))
    assert decoded_size(data, once) == total <= once.images.used < total + len(data) * 256


def test_few_images_are_looked_at(paths):
    once = LoadImageOnce()
    data = dataset(paths, once, False)
    for path in paths[1:-1]:
        os.unlink(path)
    ends = [SIZES[0], SIZES[-1]]
    assert decoded_size(data, once, samples=2) == round(6 * 3 * sum(h * w for h, w in ends) / 2)
    assert decoded_size(data, once, samples=3) is None  # no such file
    assert decoded_size([1, 2], once) is None


def test_loading_steps_lie_below_all_wrappers(paths):
    plain, once = LoadImageFromFile(), LoadImageOnce()
    one, two = dataset(paths, plain, True), dataset(paths, once, True)
    assert loading_steps(RepeatDataset(one, 3)) == [(one, plain)]
    assert loading_steps(Subset(ConcatDataset([one, two]), [0])) == [(one, plain), (two, once)]
    assert loading_steps(Images(paths, once)) == []


def test_the_announcement_replaces_that_of_the_first_image(paths, messages):
    once = LoadImageOnce(max_images=4)
    once.announce(6, 3 * 2**20)
    once(dict(img_path=paths[0]))
    assert messages() == [
        'LoadImageOnce: 6 images, about 3.0 MiB decoded; keeps up to 4 images and 4.0 GiB; the others are read each '
        'time.'
    ]
    LoadImageOnce().announce(6, 3 * 2**20)
    assert messages()[-1].endswith('keeps up to 2000 images and 4.0 GiB.')


def test_sizes_in_words():
    sizes = [3, 1023, 1024, 150 * 1024, 2**20, 3 * 2**29, 2**40]
    assert [size_text(s) for s in sizes] == ['3 bytes', '1023 bytes', '1.0 KiB', '150 KiB', '1.0 MiB', '1.5 GiB',
                                             '1024 GiB']  # fmt: skip
