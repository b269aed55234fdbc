"""The 8x8 handwritten digits that come with scikit-learn."""

import numpy as np
import torch

from freefast.data.dataset import ImageData, Split
from freefast.data.normalization import normalization

TEST_SAMPLES = 360


def load() -> ImageData:
    """1437 training and 360 test digits, one channel, always the same stratified split.

    The 17 grey levels are spread over 0 to 255. Mean 0 and std 1: model units are pixel units.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
    """
    # imported here: it takes a second that other data sets need not pay
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]  # (1797, 1, 8, 8)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, digits.target.astype(np.int64), test_size=TEST_SAMPLES, stratify=digits.target, random_state=0
    )
    mean, std = normalization("digits", 1)
    return ImageData(
        name="digits",
        classes=tuple(str(name) for name in digits.target_names),
        mean=mean,
        std=std,
        train=Split(images=torch.from_numpy(train_images), labels=torch.from_numpy(train_labels)),
        test=Split(images=torch.from_numpy(test_images), labels=torch.from_numpy(test_labels)),
    )
