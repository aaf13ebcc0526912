"""The weight lambda_u, counted by hand. FixMatch's and DACS's weights are tested in the steps that use them."""

from dataclasses import replace

import torch

from u2pl.methods.weighting import LambdaU
from u2pl.structures import PseudoLabel


def test_weight_of_the_unsupervised_loss() -> None:
    valid = torch.ones(1, 4, 5, dtype=torch.bool)
    valid[0, 0] = False
    reliable = torch.zeros_like(valid)
    reliable[0, 1] = True
    zeros = torch.zeros(1, 4, 5)
    pseudo = PseudoLabel(zeros.long(), zeros, zeros, valid, reliable, valid & ~reliable)
    assert LambdaU().lambda_u(pseudo).item() == 3
    assert LambdaU(2.0).lambda_u(pseudo).item() == 2
    assert LambdaU(4.0).lambda_u(pseudo).item() == 3
    nothing = replace(pseudo, reliable=torch.zeros_like(reliable))
    assert LambdaU().lambda_u(nothing).item() == 15
