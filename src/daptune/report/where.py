"""Where a method looks: how much each patch of an image speaks for a class.

The image tower gives a feature for every patch as it gives one for the image, with the prompts of the method: the
output of the last block under the same norm and projection, or what an attention pool makes of each place alone
(`VisionTower.each_patch`). The method classifies each as if it were an image. The relevance of a patch is the score of
the class less the mean score of all classes. What a patch has taken from others in the blocks before counts as its own,
so that a map shows a region at best.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from daptune.clip.preprocess import Preprocess
from daptune.methods import Method

SIDE = 144  # pixels of a picture with its map
COLOUR = (255, 120, 0)
STRONGEST = 0.75  # share of the colour over the most relevant patch; the picture below it is grey


@torch.no_grad()
def patch_relevance(method: Method, image: torch.Tensor, label: int) -> NDArray[np.float64] | None:
    """Relevance of the patches of an image (3, R, R) for a class: (R / patch, R / patch), from the upper left.

    None for a method that does not classify features of CLIP's image tower with prompts (`shares_image_tower`).
    """
    if not method.shares_image_tower:
        return None
    images = image[None].to(method.device)
    patches = method.clip.visual.each_patch(images, method.image_prompts())[0]  # (G, D)
    scores = method.answer(patches).double().cpu().numpy()  # (G, C)
    found: NDArray[np.float64] = scores[:, label] - scores.mean(axis=1)
    return found.reshape(round(len(found) ** 0.5), -1)


def picture_with_map(image: Image.Image, preprocess: Preprocess, relevance: NDArray[np.float64]) -> Image.Image:
    """The part of an image that the tower sees, in grey, with the relevance (g, g) in orange, none on the lowest."""
    seen = replace(preprocess, size=SIDE).crop(image)
    low, high = relevance.min(), relevance.max()
    shares = (relevance - low) / (high - low) if high > low else np.zeros_like(relevance)
    smooth = Image.fromarray(np.rint(255 * shares**2).astype(np.uint8)).resize(seen.size, Image.Resampling.BILINEAR)
    weight = STRONGEST * np.asarray(smooth, np.float64)[..., None] / 255
    grey = np.asarray(seen.convert("L"), np.float64)[..., None]
    return Image.fromarray(np.rint((1 - weight) * grey + weight * np.array(COLOUR)).astype(np.uint8))
