"""Networks: `nn.Module`s only, nothing is trained here."""

from patchmi.networks.classifiers import ARCHITECTURES, Classifier
from patchmi.networks.generator import CodeGenerator, ConditionalGenerator
from patchmi.networks.patch_discriminator import CodeClassifier, PatchDiscriminator

__all__ = [
    "ARCHITECTURES",
    "Classifier",
    "CodeClassifier",
    "CodeGenerator",
    "ConditionalGenerator",
    "PatchDiscriminator",
]
