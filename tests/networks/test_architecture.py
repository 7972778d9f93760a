"""Every row of Tables 3 and 4 of Wilde et al. (2022), and what the seven members see."""

import pytest
import torch
from torch import nn

from scanner.networks import LENS, NON_LENS, Dropout, build
from scanner.records import MEMBER_BANDS, MEMBER_PIXELS, MEMBERS

# layer, type, output shape, parameters
TABLE_3 = [
    ("0", nn.Conv2d, (50, 64, 64), 1850),
    ("2", nn.MaxPool2d, (50, 32, 32), 0),
    ("3", nn.Dropout, (50, 32, 32), 0),
    ("4", nn.Conv2d, (50, 30, 30), 22_550),
    ("6", nn.Dropout, (50, 30, 30), 0),
    ("7", nn.Conv2d, (50, 28, 28), 22_550),
    ("9", nn.Dropout, (50, 28, 28), 0),
    ("10", nn.Conv2d, (50, 26, 26), 22_550),
    ("12", nn.Dropout, (50, 26, 26), 0),
    ("13", nn.Conv2d, (40, 24, 24), 18_040),
    ("15", nn.MaxPool2d, (40, 12, 12), 0),
    ("16", nn.Dropout, (40, 12, 12), 0),
    ("17", nn.Conv2d, (40, 10, 10), 14_440),
    ("19", nn.Dropout, (40, 10, 10), 0),
    ("20", nn.Conv2d, (40, 8, 8), 14_440),
    ("22", nn.Dropout, (40, 8, 8), 0),
    ("23", nn.Conv2d, (40, 6, 6), 14_440),
    ("25", nn.Dropout, (40, 6, 6), 0),
    ("26", nn.Conv2d, (30, 4, 4), 10_830),
    ("28", nn.MaxPool2d, (30, 2, 2), 0),
    ("29", nn.Dropout, (30, 2, 2), 0),
    ("30", nn.Linear, (500,), 60_500),
    ("32", nn.Linear, (2,), 1002),
]
TABLE_4 = [
    ("0", nn.Conv2d, (50, 196, 196), 5050),
    ("2", nn.MaxPool2d, (50, 98, 98), 0),
    ("3", nn.Dropout, (50, 98, 98), 0),
    ("4", nn.Conv2d, (40, 94, 94), 50_040),
    ("6", nn.MaxPool2d, (40, 47, 47), 0),
    ("7", nn.Dropout, (40, 47, 47), 0),
    ("8", nn.Conv2d, (30, 45, 45), 10_830),
    ("10", nn.MaxPool2d, (30, 22, 22), 0),
    ("11", nn.Dropout, (30, 22, 22), 0),
    ("12", nn.Conv2d, (20, 20, 20), 5420),
    ("14", nn.MaxPool2d, (20, 10, 10), 0),
    ("15", nn.Dropout, (20, 10, 10), 0),
    ("16", nn.Conv2d, (20, 8, 8), 3620),
    ("18", nn.Dropout, (20, 8, 8), 0),
    ("19", nn.Conv2d, (20, 6, 6), 3620),
    ("21", nn.Dropout, (20, 6, 6), 0),
    ("22", nn.Linear, (350,), 252_350),
    ("24", nn.Linear, (2,), 702),
]
TABLES = {"OU-66": (TABLE_3, 203_192), "OU-200": (TABLE_4, 331_632)}


def _parameters(layer):
    return sum(weights.numel() for weights in layer.parameters())


def _shapes(network, member):
    shapes, current = {}, torch.zeros(2, len(MEMBER_BANDS[member]), MEMBER_PIXELS[member], MEMBER_PIXELS[member])
    with torch.no_grad():
        for name, layer in network.named_children():
            current = layer(current)
            shapes[name] = tuple(current.shape[1:])
    return shapes


@pytest.mark.parametrize("member", ["OU-66", "OU-200"])
def test_layers_are_those_of_the_table(member):
    table, total = TABLES[member]
    network = build(member)
    shapes = _shapes(network, member)
    for name, kind, shape, parameters in table:
        layer = network.get_submodule(name)
        assert isinstance(layer, kind), name
        assert shapes[name] == shape, name
        assert _parameters(layer) == parameters, name
    assert _parameters(network) == sum(row[3] for row in table) == total
    # What the table does not number but names: a ReLU after every convolution and after the hidden dense layer.
    rest = {name: layer for name, layer in network.named_children() if name not in {row[0] for row in table}}
    relus = [str(int(name) + 1) for name, kind, *_ in table if kind is nn.Conv2d]
    hidden = str(int(table[-2][0]) + 1)
    assert list(rest) == [*relus, "flatten", hidden]
    assert all(isinstance(layer, nn.ReLU) for name, layer in rest.items() if name != "flatten")
    assert all(layer.p == 0.2 for layer in network if isinstance(layer, nn.Dropout))


@pytest.mark.parametrize("member", MEMBERS)
def test_members_differ_from_their_table_in_the_first_layer_only(member):
    like = "OU-200" if MEMBER_PIXELS[member] == 200 else "OU-66"
    network, reference = build(member), build(like)
    assert network[0].in_channels == len(MEMBER_BANDS[member])
    assert _shapes(network, member) == _shapes(reference, like)
    assert [_parameters(layer) for layer in network][1:] == [_parameters(layer) for layer in reference][1:]


def test_channels_are_in_the_published_order():
    assert MEMBER_BANDS == {
        "OU-J": ("J",),
        "OU-Y": ("Y",),
        "OU-H": ("H",),
        "OU-JYH": ("J", "Y", "H"),
        "OU-VIS": ("VIS",),
        "OU-66": ("J", "Y", "H", "VIS"),
        "OU-200": ("J", "Y", "H", "VIS"),
    }
    assert [name for name in MEMBERS if MEMBER_PIXELS[name] == 200] == ["OU-VIS", "OU-200"]
    assert (NON_LENS, LENS) == (0, 1)


def test_weights_start_at_he_normalisation():
    network = build("OU-200", seed=5)
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.numel() > 1000:
            fan_in = layer.weight[0].numel()
            assert layer.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
            assert not layer.bias.any()


def test_a_seed_fixes_the_weights():
    state, again, other = (build("OU-J", seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(state[key], again[key]) for key in state)
    assert not torch.equal(state["0.weight"], other["0.weight"])


def test_one_image_and_many_give_the_same_logits():
    network = build("OU-H", seed=0).eval()
    images = torch.rand(3, 1, 66, 66, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(images[1:2])[0], network(images)[1], rtol=1e-4, atol=1e-5)


def test_unknown_members_are_refused():
    with pytest.raises(ValueError, match=r"unknown member 'OU-9'.*OU-J, OU-Y"):
        build("OU-9")


def test_dropout_drops_as_many_as_it_says_scales_the_rest_and_takes_the_same_from_the_gradient():
    torch.manual_seed(5)
    values = (1.0 + torch.rand(40, 50, 16, 15)).to(memory_format=torch.channels_last).requires_grad_()
    dropout = Dropout(0.2)
    seen = dropout(values)
    kept = seen != 0
    assert float(kept.float().mean()) == pytest.approx(0.8, abs=0.003)  # 5 sigma of 480,000 draws
    assert float(kept.float().mean(dim=(0, 2, 3)).std()) == pytest.approx((0.16 / 9600) ** 0.5, rel=0.35)  # no channel alone
    assert float((kept[0] & kept[1]).float().mean()) == pytest.approx(0.64, abs=0.02)  # no image as another
    torch.testing.assert_close(seen[kept], 1.25 * values[kept])
    seen.sum().backward()
    assert torch.equal(values.grad, torch.where(kept, 1.25, 0.0))
    assert torch.equal(dropout(values) != 0, kept) is False
    assert dropout.eval()(values) is values


def test_dropout_of_another_share_and_of_a_cut_out_of_a_tensor():
    torch.manual_seed(6)
    cut = torch.ones(300, 40)[:, 1:38]
    assert float((Dropout(0.55)(cut) == 0).float().mean()) == pytest.approx(0.55, abs=0.025)
