import numpy as np

from scanner.explain.ascent import convolutions, kernel_activation, strongest
from scanner.networks import build


def test_values_are_those_of_a_forward_hook(tiny_network, noise):
    network, images, hooked = tiny_network(16), noise(7, 2, 16, 16), {}

    def keep(name):
        return lambda module, given, out: hooked.__setitem__(name, out.mean(dim=(2, 3)).numpy())

    hooks = [layer.register_forward_hook(keep(name)) for name, layer in convolutions(network).items()]
    network(images)
    for hook in hooks:
        hook.remove()
    done = []
    found = kernel_activation(network, images.split(3), report=done.append)
    assert list(found) == list(hooked) == ["0", "4"]
    assert done == [3, 3, 1]
    for name, values in hooked.items():
        assert (values < 0).any(), "before the ReLU some are negative"
        np.testing.assert_allclose(found[name], values, atol=1e-6)


def test_layers_carry_the_numbers_of_the_papers_figures():
    assert list(convolutions(build("OU-66", seed=0))) == ["0", "4", "7", "10", "13", "17", "20", "23", "26"]
    assert list(convolutions(build("OU-200", seed=0))) == ["0", "4", "8", "12", "16", "19"]


def test_the_strongest_come_first_and_ties_in_row_order():
    activation = np.array([[1.0, 5.0], [3.0, 5.0], [2.0, 7.0], [3.0, 0.0]])
    assert strongest(activation, 3).tolist() == [[1, 3, 2], [2, 0, 1]]
