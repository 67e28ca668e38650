"""Progressive anchor loss: worked out by hand on few priors, and what it does without faces."""

from math import exp, log

import pytest
import torch

from facemill.detector_training.losses import progressive_anchor_loss, shot_loss
from facemill.nets.dsfd import Dsfd, DsfdConfig, DsfdOutput, Shot
from facemill.nets.dsfd_priors import PriorConfig, encode, match, priors

pytestmark = pytest.mark.usefixtures("one_thread")


ONE_CELL = PriorConfig(strides=(8,), sizes_px=(8,), aspect=1.0)  # an 8 px picture has one prior a cell of 8 px


def answers(logits, offsets=None):
    logits = torch.tensor(logits, dtype=torch.float32)[None]
    return Shot(torch.zeros(1, logits.shape[1], 4) if offsets is None else torch.tensor(offsets)[None], logits)


def test_a_shot_counts_the_matched_priors_and_three_negatives_for_each():
    """Six cells in a row; the face fills the first. Negatives' losses are log(1 + e^z), hardest z = 3, 2, 1."""
    logits = [[0.0, 0.0], [0, 3.0], [0, -1.0], [0, 2.0], [0, -2.0], [0, 1.0]]
    conf, loc = shot_loss(answers(logits), [torch.tensor([[0.0, 0, 8, 8]])], (8, 48), ONE_CELL, 2, 0.4)
    assert conf.item() == pytest.approx(log(2) + sum(log(1 + exp(z)) for z in (3, 2, 1)), rel=1e-5)
    assert loc.item() == 0


def test_the_location_loss_is_smooth_l1_over_the_matched_priors_only():
    """Offsets 0.5 and 2 away: 0.5 · 0.5² + (2 − 0.5); the second prior's offsets are nobody's business."""
    offsets = [[0.5, 2.0, 0, 0], [9.0, 9, 9, 9]]
    _, loc = shot_loss(answers([[0.0, 0]] * 2, offsets), [torch.tensor([[0.0, 0, 8, 8]])], (8, 16), ONE_CELL, 2, 0.4)
    assert loc.item() == pytest.approx(0.125 + 1.5)


def test_both_parts_are_divided_by_the_matched_priors_of_the_batch():
    """Twice the same picture with one face: the same loss as once."""
    face = torch.tensor([[0.0, 0, 8, 8]])
    once = answers([[0.0, 1], [0, 2], [0, 3]], [[1.0, 0, 0, 0]] * 3)
    twice = Shot(once.offsets.repeat(2, 1, 1), once.logits.repeat(2, 1, 1))
    alone = shot_loss(once, [face], (8, 24), ONE_CELL, 2, 0.4)
    both = shot_loss(twice, [face, face], (8, 24), ONE_CELL, 2, 0.4)
    torch.testing.assert_close(both, alone)


def test_a_picture_without_faces_teaches_its_three_worst_false_alarms():
    logits = [[0.0, 3.0], [0, -1.0], [0, 2.0], [0, 1.0]]
    conf, loc = shot_loss(answers(logits), [torch.zeros(0, 4)], (8, 32), ONE_CELL, 2, 0.4)
    assert conf.item() == pytest.approx(sum(log(1 + exp(z)) for z in (3, 2, 1)), rel=1e-5)
    assert loc.item() == 0


def test_fewer_negatives_than_wanted_are_all_of_them():
    conf, _ = shot_loss(answers([[0.0, 0], [0, 1.0]]), [torch.tensor([[0.0, 0, 8, 8]])], (8, 16), ONE_CELL, 2, 0.4)
    assert conf.item() == pytest.approx(log(2) + log(1 + exp(1)), rel=1e-5)


def test_each_shot_is_matched_against_its_own_priors():
    """A face of 8 px is as large as the first shot's smallest prior; the second shot's is twice that."""
    config = DsfdConfig()
    face = torch.tensor([[15.0, 14.0, 21.5, 24.0]])
    first, second = (priors(32, 32, config.priors, shot) for shot in (1, 2))
    count = len(first)
    offsets = [torch.zeros(1, count, 4) for _ in range(2)]
    taken = match(first, face) == 0
    offsets[0][0, taken] = encode(first[taken], face.expand(int(taken.sum()), 4))
    output = DsfdOutput(*(Shot(o, torch.zeros(1, count, 2)) for o in offsets))
    loss = progressive_anchor_loss(output, [face], (32, 32), config)
    assert loss.first_loc.item() == pytest.approx(0, abs=1e-6)
    assert loss.second_loc.item() > 1
    parts = loss.first_conf + loss.first_loc + loss.second_conf + loss.second_loc
    torch.testing.assert_close(loss.total, parts)
    assert (match(second, face) == 0).sum() == 1


def test_a_better_answer_has_a_lower_loss_and_the_gradient_reaches_every_weight():
    torch.manual_seed(0)
    model = Dsfd(DsfdConfig(width=0.125)).train()
    pictures, faces = torch.rand(2, 3, 128, 128), [torch.tensor([[20.0, 30, 60, 90]]), torch.zeros(0, 4)]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    losses = []
    for _ in range(4):
        loss = progressive_anchor_loss(model(pictures), faces, (128, 128), model.config)
        optimizer.zero_grad()
        loss.total.backward()
        assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 100)
        optimizer.step()
        losses.append(loss.total.item())
    assert losses[-1] < losses[0]


def test_a_batch_without_any_face_has_a_finite_loss_and_gradient():
    model = Dsfd(DsfdConfig(width=0.125)).train()
    loss = progressive_anchor_loss(model(torch.zeros(1, 3, 128, 128)), [torch.zeros(0, 4)], (128, 128), model.config)
    loss.total.backward()
    assert torch.isfinite(loss.total)
    assert loss.first_loc == loss.second_loc == 0
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters())


def test_an_answer_that_is_not_a_number_makes_the_loss_none():
    conf, _ = shot_loss(answers([[0.0, 0], [0, float("nan")]]), [torch.zeros(0, 4)], (8, 16), ONE_CELL, 2, 0.4)
    assert torch.isnan(conf)


def test_the_loss_wants_both_shots():
    output = DsfdOutput(None, Shot(torch.zeros(1, 1, 4), torch.zeros(1, 1, 2)))
    with pytest.raises(ValueError, match="training mode"):
        progressive_anchor_loss(output, [torch.zeros(0, 4)], (8, 8), DsfdConfig())
