"""Why the networks say what they say: one file and one verb a method (Wilde et al. 2022, section 5)."""

from scanner.explain.class_image import class_image
from scanner.explain.deep_dream import deep_dream
from scanner.explain.disagreement import disagreement
from scanner.explain.faithfulness import faithfulness
from scanner.explain.guided_grad_cam import guided_grad_cam
from scanner.explain.kernel_activation import kernel_activation
from scanner.explain.kernel_image import kernel_image
from scanner.explain.neighbours import neighbours
from scanner.explain.networks import restore
from scanner.explain.occlusion import occlusion

__all__ = [
    "class_image",
    "deep_dream",
    "disagreement",
    "faithfulness",
    "guided_grad_cam",
    "kernel_activation",
    "kernel_image",
    "neighbours",
    "occlusion",
    "restore",
]
