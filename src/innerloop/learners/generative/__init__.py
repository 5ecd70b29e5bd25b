"""Generative learners: they generate new examples of a task's classes."""

from innerloop.learners.generative.gtn import GTN
from innerloop.learners.generative.meta_gan import MetaGAN
from innerloop.learners.generative.meta_vae import MetaVAE

__all__ = ["GTN", "MetaGAN", "MetaVAE"]
