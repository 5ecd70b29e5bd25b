"""Learners that compare examples in a learned space."""

from innerloop.learners.metric.centre_loss import CentreLossNet
from innerloop.learners.metric.matching import MatchingNet
from innerloop.learners.metric.protonet import ProtoNet
from innerloop.learners.metric.relation import RelationNet
from innerloop.learners.metric.siamese import SiameseNet
from innerloop.learners.metric.siamese_u_net import SiameseUNet
from innerloop.learners.metric.sliding_protonet import SlidingProtoNet
from innerloop.learners.metric.triplet import TripletNet

__all__ = [
    "CentreLossNet",
    "MatchingNet",
    "ProtoNet",
    "RelationNet",
    "SiameseNet",
    "SiameseUNet",
    "SlidingProtoNet",
    "TripletNet",
]
