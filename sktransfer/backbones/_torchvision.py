"""Source of backbones: the classification networks of torchvision."""

import os

import torchvision.models

from ..exceptions import WeightsError
from ._building import behead, building, fill
from ._download import official_digest, official_file
from ._spec import BackboneSpec, Preprocessing, check_smallest, random_fingerprint
from ._weights import SUFFIXES, file_digest, read_choice

#: Networks whose image size is fixed when they are built, and the parameter for it.
_FIXED_SIZE = {
    **dict.fromkeys(["vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14"], "image_size"),
    "maxvit_t": "input_size",
}

#: Names by width of the embedding: the number of inputs of the last layer. The table makes widths
#: known without building a network; the tests check it.
_NAMES = {
    400: "regnet_x_400mf",
    440: "regnet_y_400mf",
    512: "maxvit_t resnet18 resnet34 squeezenet1_0 squeezenet1_1",
    672: "regnet_x_800mf",
    768: "convnext_small convnext_tiny swin_s swin_t swin_v2_s swin_v2_t vit_b_16 vit_b_32",
    784: "regnet_y_800mf",
    888: "regnet_y_1_6gf",
    912: "regnet_x_1_6gf",
    1008: "regnet_x_3_2gf",
    1024: "convnext_base densenet121 googlenet mobilenet_v3_small shufflenet_v2_x0_5 "
    "shufflenet_v2_x1_0 shufflenet_v2_x1_5 swin_b swin_v2_b vit_l_16 vit_l_32",
    1280: "efficientnet_b0 efficientnet_b1 efficientnet_v2_l efficientnet_v2_m efficientnet_v2_s "
    "mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3 mobilenet_v2 mobilenet_v3_large vit_h_14",
    1408: "efficientnet_b2",
    1512: "regnet_y_3_2gf",
    1536: "convnext_large efficientnet_b3",
    1664: "densenet169",
    1792: "efficientnet_b4",
    1920: "densenet201 regnet_x_8gf",
    2016: "regnet_y_8gf",
    2048: "efficientnet_b5 inception_v3 regnet_x_16gf resnet101 resnet152 resnet50 "
    "resnext101_32x8d resnext101_64x4d resnext50_32x4d shufflenet_v2_x2_0 wide_resnet101_2 "
    "wide_resnet50_2",
    2208: "densenet161",
    2304: "efficientnet_b6",
    2520: "regnet_x_32gf",
    2560: "efficientnet_b7",
    3024: "regnet_y_16gf",
    3712: "regnet_y_32gf",
    4096: "alexnet vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn",
    7392: "regnet_y_128gf",
}
WIDTHS = {name: width for width, group in _NAMES.items() for name in group.split()}


def names():
    offered = torchvision.models.list_models(module=torchvision.models)
    return sorted(WIDTHS.keys() & set(offered))


def matches(backbone):
    return backbone in WIDTHS


def resolve(name, weights, image_size):
    members = torchvision.models.get_model_weights(name)
    if isinstance(weights, torchvision.models.WeightsEnum) and not isinstance(weights, members):
        raise WeightsError(
            f"{weights} does not belong to {name!r}.\n"
            f"Hint: pass one of {[str(member) for member in members]}."
        )
    weights = read_choice(weights)
    official = isinstance(weights, str)
    member = _member(name, weights if official else "DEFAULT")
    preset = member.transforms()
    preprocessing = Preprocessing(
        preset.crop_size[0],
        preset.resize_size[0],
        preset.interpolation.value,
        tuple(preset.mean),
        tuple(preset.std),
    )
    if image_size is not None and image_size != preprocessing.image_size:
        if name not in _FIXED_SIZE:
            check_smallest(name, image_size, max(member.meta["min_size"]))
        elif official or name == "maxvit_t":
            raise ValueError(
                f"{name!r} with the weights {member.name} takes images of "
                f"{preprocessing.image_size} pixels only, got image_size={image_size}.\nHint: pass "
                "image_size=None, or choose other official weights or a convolutional network."
            )
        preprocessing = preprocessing.for_size(image_size)
    label = member.name if official else weights and str(weights)
    text = _fingerprint(name, label, preprocessing.image_size)
    return BackboneSpec(name, label, text, WIDTHS[name], preprocessing)


def fingerprint(spec):
    return _fingerprint(spec.name, spec.weights, spec.preprocessing.image_size)


def _fingerprint(name, weights, image_size):
    built_for = f":built_for={image_size}" if name in _FIXED_SIZE else ""
    if weights is None:
        return random_fingerprint("torchvision", name) + built_for
    if os.path.isabs(weights):
        return f"torchvision:{name}:sha256={file_digest(weights)}{built_for}"
    return f"torchvision:{name}:{weights}:{official_digest(_member(name, weights).url)}"


def load(spec):
    name, weights, url = spec.name, spec.weights, None
    if weights is not None and not os.path.isabs(weights):
        url = _member(name, weights).url
        weights = official_file(url, repr(name))
    options, aux = {}, ()
    if name in ("googlenet", "inception_v3"):
        # The official weights of these two come from another library, which scales its input.
        pretrained = weights is not None
        options = {"aux_logits": False, "init_weights": False, "transform_input": pretrained}
        aux = ("aux1.", "aux2.", "AuxLogits.")
    elif name in _FIXED_SIZE:
        size = spec.preprocessing.image_size
        options = {_FIXED_SIZE[name]: (size, size) if name == "maxvit_t" else size}
    with building(random=weights is None):
        network = torchvision.models.get_model(name, weights=None, **options)
    network = fill(behead(network, aux), weights, name)
    if url is not None:
        official_file(url, repr(name))  # it was not replaced while it was being read
    return network


def _member(name, weights):
    members = torchvision.models.get_model_weights(name)
    if weights == "DEFAULT":
        return members.DEFAULT
    offered = [member.name for member in members]
    if weights == "IMAGENET1K_FEATURES":
        raise WeightsError(
            f"The weights {weights!r} of {name!r} lack the classifier layers, which the embedding "
            f"needs.\nHint: pass one of {[n for n in offered if n != weights]}."
        )
    if weights not in offered:
        raise WeightsError(
            f"There are no official weights {weights!r} for {name!r}.\nHint: pass one of "
            f"{offered}, or the path of a weights file ({', '.join(SUFFIXES)})."
        )
    return members[weights]
