"""Why the networks say what they say: one file and one verb a method (Wilde et al. 2022, section 5)."""

from scanner.explain.disagreement import disagreement
from scanner.explain.guided_grad_cam import guided_grad_cam
from scanner.explain.neighbours import neighbours
from scanner.explain.networks import restore
from scanner.explain.occlusion import occlusion

__all__ = ["disagreement", "guided_grad_cam", "neighbours", "occlusion", "restore"]
