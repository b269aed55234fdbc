import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from freefast.data.augment import crop_and_flip, draw
from freefast.data.seeding import generator


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 32, 32), (1, 8, 8), (3, 5, 12)])
def test_crop_and_flip_as_pillow_does_it(channels: int, height: int, width: int) -> None:
    random = generator(1)
    images = torch.randint(0, 256, (40, channels, height, width), dtype=torch.uint8, generator=random)
    before = images.clone()
    augmentation = draw(40, random)
    got = crop_and_flip(images, augmentation)
    for image, top, left, flip, result in zip(images, *augmentation, got, strict=True):
        picture = ImageOps.expand(to_pil_image(image), border=4, fill=0)
        picture = picture.crop((int(left), int(top), int(left) + width, int(top) + height))
        if flip:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        assert torch.equal(result, pil_to_tensor(picture))
    assert torch.equal(images, before)


def test_every_crop_and_flip_is_equally_likely() -> None:
    samples = 81 * 2 * 400
    top, left, flip = draw(samples, generator(0))
    counts = torch.bincount((top * 9 + left) * 2 + flip)
    assert counts.shape == (162,)
    assert (counts - 400).abs().max() < 5 * 400**0.5


def test_select_keeps_each_samples_augmentation() -> None:
    augmentation = draw(50, generator(0))
    index = torch.tensor([7, 3, 49])
    for whole, part in zip(augmentation, augmentation.select(index), strict=True):
        assert part.tolist() == [whole[7], whole[3], whole[49]]
