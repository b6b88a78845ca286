"""Networks: `nn.Module`s only, nothing is trained here."""

from patchmi.networks.classifiers import ARCHITECTURES, Classifier
from patchmi.networks.conditional_gan import (
    AuxiliaryClassifierDiscriminator,
    ConditionalResNetGenerator,
    ProjectionDiscriminator,
)
from patchmi.networks.evaluation import in_evaluation
from patchmi.networks.gan import DcganDiscriminator, DcganGenerator, WganCritic, WganGenerator
from patchmi.networks.generator import CodeGenerator, ConditionalGenerator
from patchmi.networks.patch_discriminator import ClassPatchDiscriminator, CodeClassifier, PatchDiscriminator
from patchmi.networks.variants import Bottleneck, build_classifier, stages

__all__ = [
    "ARCHITECTURES",
    "AuxiliaryClassifierDiscriminator",
    "Bottleneck",
    "ClassPatchDiscriminator",
    "Classifier",
    "CodeClassifier",
    "CodeGenerator",
    "ConditionalGenerator",
    "ConditionalResNetGenerator",
    "DcganDiscriminator",
    "DcganGenerator",
    "PatchDiscriminator",
    "ProjectionDiscriminator",
    "WganCritic",
    "WganGenerator",
    "build_classifier",
    "in_evaluation",
    "stages",
]
