"""Generative learners: they generate new examples of a task's classes."""

from innerloop.learners.generative.flow_matching import FlowMatching
from innerloop.learners.generative.gtn import GTN
from innerloop.learners.generative.meta_gan import MetaGAN
from innerloop.learners.generative.meta_vae import MetaVAE

__all__ = ["GTN", "FlowMatching", "MetaGAN", "MetaVAE"]
