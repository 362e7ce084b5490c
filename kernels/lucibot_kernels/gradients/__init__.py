"""What the kernels compute, with gradients: torch autograd functions whose backward pass is a kernel too.

The same as functions of JAX: `lucibot_kernels.gradients.jax`. Everything takes float32, and float64
to be checked against finite differences; gradients of gradients there are none.
"""

from lucibot_kernels.gradients.affordance import tip_distance
from lucibot_kernels.gradients.clouds import chamfer, contact_distance, posed
from lucibot_kernels.gradients.pictures import SoftPicture, soft_iou, soft_observe, soften

__all__ = [
    "SoftPicture",
    "chamfer",
    "contact_distance",
    "posed",
    "soft_iou",
    "soft_observe",
    "soften",
    "tip_distance",
]
