"""A small seeded detection set: geometric shapes on textured backgrounds, written in COCO's format.

Six classes (:data:`CLASSES`) in three sizes. At the usual image side of 160 px the diameters are 16 to 30 px (mostly
small in COCO's sense, box area below 32² px), 38 to 84 px (medium) and 108 to 150 px (mostly large, above 96² px);
for other image sides they grow in proportion. Colours carry no information about the class.

How a scene is made, and what its boxes mean:

- Shapes are drawn from the largest to the smallest, each over what is there. A position where the new shape would
  leave less than half of any earlier one visible, or would itself be cut by the image border by more than 30 %, is
  drawn again; after twelve vain tries the shape is left out. So whatever can be seen is annotated, and whatever is
  annotated can be seen.
- A box is tight around the *visible* pixels of its shape: hidden and cut off parts do not count. A pixel belongs to
  the topmost shape that covers at least half of it. ``area`` is width times height of the box, so that the size
  classes of COCO's evaluation are those of the boxes.
- A share of the images has no shape at all.

Image ``i`` of a split depends on the seed, the split's name and ``i`` only; a larger set begins with the smaller one.
The same seed gives the same bytes (with the same versions of NumPy and OpenCV).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from kd_det.errors import DataError

__all__ = ['CLASSES', 'PALETTE', 'Scene', 'SyntheticSpec', 'check_synthetic', 'draw_scene', 'write_synthetic']

#: Class names, in label order.
CLASSES = ('square', 'circle', 'triangle', 'star', 'cross', 'ring')
#: Colours (RGB) of the classes in pictures.
PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0))

#: Version of the drawing: raised whenever the same seed gives other pixels.
VERSION = 1
MANIFEST = 'manifest.json'

_SIZES = ((16, 30), (38, 84), (108, 150))  # diameters at an image side of 160 px
_SIZE_SHARE = (0.45, 0.38, 0.17)
_MIN_VISIBLE = 0.5
_MIN_INSIDE = 0.7
_TRIES = 12
_RIM = 1.5
_TURN = np.deg2rad(25)


@dataclass(frozen=True)
class SyntheticSpec:
    """What a set holds.

    Args:
        seed: Seed of all drawing.
        train: Number of training images.
        val: Number of validation images.
        image_size: Side of the square images in pixels, at least 64.
        max_objects: At most so many shapes in an image; the number is uniform from 1.
        empty: Share of images without any shape.
    """

    seed: int = 0
    train: int = 800
    val: int = 120
    image_size: int = 160
    max_objects: int = 4
    empty: float = 0.05

    def __post_init__(self) -> None:
        for key, least in (('seed', 0), ('train', 1), ('val', 1), ('image_size', 64), ('max_objects', 1)):
            value = getattr(self, key)
            if not isinstance(value, int) or value < least:
                raise DataError(f'synthetic set: {key} is {value!r}, expected an integer of at least {least}.')
        if not 0 <= self.empty < 1:
            raise DataError(f'synthetic set: empty is {self.empty!r}, expected a share from 0 up to, not including, 1.')


@dataclass(frozen=True)
class Scene:
    """One drawn image.

    Args:
        image: (H, W, 3) uint8, RGB.
        boxes: (n, 4) int64, ``x1, y1, x2, y2`` in pixels, tight around the visible pixels, ends exclusive.
        labels: (n,) int64, indices into :data:`CLASSES`.
        areas: (n,) float64, pixels of each whole shape, hidden and cut off parts included.
        owner: (H, W) int64, for each pixel the index of the shape seen there, or -1.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    owner: np.ndarray


# ---------------------------------------------------------------------------------------------------------- shapes


def _outline(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance-like function of a shape of circumradius 1 at the origin: negative inside, positive outside."""
    if name == 'square':
        return np.maximum(abs(x), abs(y)) - np.sqrt(0.5)
    if name == 'circle':
        return np.hypot(x, y) - 1
    if name == 'ring':
        return abs(np.hypot(x, y) - 0.76) - 0.24
    if name == 'triangle':
        return np.maximum(np.maximum(np.sqrt(0.75) * x - 0.5 * y, -np.sqrt(0.75) * x - 0.5 * y), y) - 0.5
    if name == 'cross':
        across = np.maximum(abs(x) - 0.95, abs(y) - 0.31)
        return np.minimum(across, np.maximum(abs(y) - 0.95, abs(x) - 0.31))
    # star: fold the plane into one half of one of the five points, which has a single straight edge
    sector = 2 * np.pi / 5
    angle = abs((np.arctan2(x, -y) + sector / 2) % sector - sector / 2)
    radius = np.hypot(x, y)
    tip, notch = np.array([1.0, 0.0]), 0.45 * np.array([np.cos(sector / 2), np.sin(sector / 2)])
    edge = notch - tip
    normal = np.array([edge[1], -edge[0]]) / np.hypot(*edge)
    return (radius * np.cos(angle) - tip[0]) * normal[0] + radius * np.sin(angle) * normal[1]


def _coverage(name: str, centre: np.ndarray, radius: float, turn: float, size: int) -> tuple[tuple, np.ndarray, float]:
    """Coverage in [0, 1] of the pixels by one shape.

    Returns:
        The window as a pair of slices (clipped to the image), the coverage inside it, and the area of the whole shape
        in pixels, parts outside the image included.
    """
    low = np.floor(centre - radius - 2).astype(int)
    side = int(np.ceil(2 * radius)) + 5
    ys, xs = np.mgrid[0:side, 0:side] + 0.5
    dx, dy = xs + low[0] - centre[0], ys + low[1] - centre[1]
    cos, sin = np.cos(turn), np.sin(turn)
    value = _outline(name, (cos * dx + sin * dy) / radius, (cos * dy - sin * dx) / radius) * radius
    cover = np.clip(0.5 - value, 0, 1)
    whole = float((cover >= 0.5).sum())
    x1, y1 = np.clip(low, 0, size)
    x2, y2 = np.clip(low + side, 0, size)
    part = (slice(y1 - low[1], y2 - low[1]), slice(x1 - low[0], x2 - low[0]))
    rim = np.clip(value + _RIM + 0.5, 0, 1)
    return (slice(y1, y2), slice(x1, x2)), cover[part], rim[part], whole


# ----------------------------------------------------------------------------------------------------- backgrounds


def _noise(rng: np.random.Generator, size: int) -> np.ndarray:
    """Smooth noise of several octaves, (size, size), scaled to [0, 1]."""
    field = np.zeros((size, size))
    cells, weight = int(rng.integers(2, 6)), 1.0
    for _ in range(4):
        grid = rng.random((cells + 2, cells + 2))
        field += weight * cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
        cells, weight = cells * 2, weight * rng.uniform(0.35, 0.6)
    low, high = field.min(), field.max()
    return (field - low) / max(high - low, 1e-9)


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A textured background, (size, size, 3) float64 in 0 … 255: noise, waves, stripes or a chequered cloth."""
    ys, xs = np.mgrid[0:size, 0:size] / size
    turn, cycles, phase = rng.uniform(0, np.pi), rng.uniform(2, 8), rng.uniform(0, 2 * np.pi)
    warp = _noise(rng, size)
    along = 2 * np.pi * cycles * (np.cos(turn) * xs + np.sin(turn) * ys) + phase
    across = 2 * np.pi * cycles * (np.cos(turn) * ys - np.sin(turn) * xs)
    kind = rng.integers(4)
    if kind == 0:
        mix = warp
    elif kind == 1:
        mix = 0.5 + 0.5 * np.sin(along + 4 * warp)
    elif kind == 2:
        mix = (np.sin(along + warp) > 0.2) * 0.8 + 0.2 * warp
    else:
        mix = (np.sin(along) * np.sin(across) > 0) * 0.7 + 0.3 * warp
    first, second = rng.uniform(30, 225, (2, 3))
    second = first + (second - first) * rng.uniform(0.15, 0.5)
    image = first + (second - first) * mix[..., None]
    return image + rng.normal(0, rng.uniform(2, 7), (size, size, 1))


def _colour(rng: np.random.Generator, under: np.ndarray) -> np.ndarray:
    """A colour (RGB) that differs by at least 100 (Euclidean) from the mean colour ``under`` it."""
    for _ in range(50):
        colour = rng.uniform(10, 245, 3)
        if np.linalg.norm(colour - under) >= 100:
            break
    return colour


def draw_scene(rng: np.random.Generator, image_size: int = 160, objects: int = 3) -> Scene:
    """Draw one image.

    Args:
        rng: Source of all chance.
        image_size: Side of the image in pixels.
        objects: Number of shapes to place; those that find no place are left out.

    Returns:
        The scene, shapes in drawing order (largest first).
    """
    size, scale = image_size, image_size / 160
    image = _background(rng, size)
    owner = np.full((size, size), -1)
    kinds = rng.choice(3, objects, p=_SIZE_SHARE)
    diameters = sorted((rng.uniform(*_SIZES[k]) * scale for k in kinds), reverse=True)
    labels, wholes = [], []
    for diameter in diameters:
        label, turn = int(rng.integers(len(CLASSES))), rng.uniform(-_TURN, _TURN)
        margin = 0.35 * diameter
        for _ in range(_TRIES):
            centre = rng.uniform(margin, size - margin, 2)
            window, cover, rim, whole = _coverage(CLASSES[label], centre, diameter / 2, turn, size)
            mine = cover >= 0.5
            if mine.sum() < _MIN_INSIDE * whole:
                continue
            trial = owner.copy()
            trial[window][mine] = len(labels)
            seen = np.bincount(trial[trial >= 0], minlength=len(labels) + 1)
            if (seen[:-1] >= _MIN_VISIBLE * np.array(wholes)).all():
                break
        else:
            continue
        patch = image[window]
        colour = _colour(rng, patch[mine].mean(axis=0))
        shade = np.linspace(*rng.uniform(0.82, 1.1, 2), patch.shape[0])[:, None, None]
        paint = colour * shade + rng.normal(0, 3, patch.shape[:2] + (1,))
        paint = paint * (1 - 0.75 * rim[..., None])
        image[window] = patch + cover[..., None] * (paint - patch)
        owner = trial
        labels.append(label)
        wholes.append(whole)
    boxes = np.array([_tight(owner == i) for i in range(len(labels))], dtype=np.int64).reshape(-1, 4)
    image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return Scene(image, boxes, np.array(labels, dtype=np.int64), np.array(wholes, dtype=float), owner)


def _tight(mask: np.ndarray) -> tuple[int, int, int, int]:
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return xs[0], ys[0], xs[-1] + 1, ys[-1] + 1


# --------------------------------------------------------------------------------------------------------- writing


def _scene(spec: SyntheticSpec, split: str, index: int) -> Scene:
    rng = np.random.default_rng([spec.seed, zlib.crc32(split.encode()), index])
    objects = 0 if rng.random() < spec.empty else int(rng.integers(1, spec.max_objects + 1))
    return draw_scene(rng, spec.image_size, objects)


def _write(folder: Path, spec: SyntheticSpec) -> None:
    """Write a whole set into an existing, empty folder. The manifest comes last."""
    (folder / 'annotations').mkdir()
    for split, count in (('train', spec.train), ('val', spec.val)):
        (folder / split).mkdir()
        images, annotations = [], []
        for index in range(count):
            scene, name = _scene(spec, split, index), f'{index:06d}.png'
            done, data = cv2.imencode('.png', scene.image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 3])
            if not done:
                raise DataError(f'synthetic set: OpenCV {cv2.__version__} could not encode {split}/{name} as PNG.')
            (folder / split / name).write_bytes(data.tobytes())
            images.append(dict(id=index + 1, file_name=name, width=spec.image_size, height=spec.image_size))
            for (x1, y1, x2, y2), label in zip(scene.boxes.tolist(), scene.labels.tolist()):
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=index + 1,
                        category_id=label + 1,
                        bbox=[x1, y1, x2 - x1, y2 - y1],
                        area=(x2 - x1) * (y2 - y1),
                        iscrowd=0,
                    )
                )
        content = dict(
            info=dict(description='kd_det synthetic shapes', version=str(VERSION), split=split, **asdict(spec)),
            licenses=[],
            images=images,
            annotations=annotations,
            categories=[dict(id=i + 1, name=name, supercategory='shape') for i, name in enumerate(CLASSES)],
        )
        (folder / 'annotations' / f'{split}.json').write_text(json.dumps(content))
    files = sorted(p for p in folder.rglob('*') if p.is_file())
    digests = {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    manifest = dict(version=VERSION, spec=asdict(spec), sha256=digests)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def _manifest(root: Path) -> dict | None:
    """The manifest of a set, or None if there is none that can be read."""
    try:
        manifest = json.loads((root / MANIFEST).read_text())
        return manifest if {'version', 'spec', 'sha256'} <= manifest.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def check_synthetic(root: str | Path, spec: SyntheticSpec | None = None) -> list[str]:
    """Check a set on disk against its manifest: every file is read and its SHA-256 compared.

    Args:
        root: Folder of the set.
        spec: What the set should hold; None accepts any.

    Returns:
        What is wrong, one sentence each; empty if the set is complete and intact.
    """
    root = Path(root)
    manifest = _manifest(root)
    if manifest is None:
        return [f"'{root}' has no readable {MANIFEST}."]
    if manifest['version'] != VERSION:
        return [f"'{root}' was drawn by version {manifest['version']}, this is version {VERSION}."]
    if spec is not None and manifest['spec'] != asdict(spec):
        return [f"'{root}' holds {manifest['spec']}, wanted is {asdict(spec)}."]
    problems = []
    for name, digest in manifest['sha256'].items():
        try:
            if hashlib.sha256((root / name).read_bytes()).hexdigest() != digest:
                problems.append(f"'{root / name}' was changed.")
        except OSError as error:
            problems.append(f"'{root / name}' cannot be read ({error.strerror}).")
    return problems


def write_synthetic(root: str | Path, spec: SyntheticSpec | None = None) -> bool:
    """Make sure that ``root`` holds the set of ``spec``.

    An intact set is kept. A damaged one, or one of another spec, is replaced. The set is written beside ``root`` and
    renamed when it is complete, so an interrupted run leaves no half-written set under that name.

    Args:
        root: Folder of the set.
        spec: What to draw; the default set if None.

    Returns:
        True if the set was written, False if the existing one was kept.

    Raises:
        DataError: ``root`` exists and is no set of ours, or cannot be written.
    """
    root, spec = Path(root), spec or SyntheticSpec()
    if not check_synthetic(root, spec):
        return False
    if root.exists() and _manifest(root) is None and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"synthetic set: '{root}' exists and holds something else; name a new or empty folder.")
    fresh, old = (root.with_name(f'.{root.name}.{os.getpid()}.{part}') for part in ('partial', 'old'))
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        fresh.mkdir()
        _write(fresh, spec)
        if root.exists():
            root.rename(old)
        fresh.rename(root)
    except OSError as error:
        if not check_synthetic(root, spec):  # another process was faster
            return False
        raise DataError(
            f"synthetic set: '{root}' cannot be written ({error.strerror}); name another folder."
        ) from error
    finally:
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
    return True
