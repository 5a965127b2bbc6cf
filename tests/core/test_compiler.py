"""What XLA is told about convolutions changes no result, and where it knows no such option, nothing is said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmtl_jax.core import compiler
from mmtl_jax.core.compiler import LIBRARY_CALLS, compiler_options
from mmtl_jax.training import compilation


@pytest.fixture(autouse=True)
def asked_anew():
    compiler_options.cache_clear()
    yield
    compiler_options.cache_clear()


def convolve(x, weights):
    return jax.lax.conv_general_dilated(x, weights, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def gradient(options):
    keys = jax.random.split(jax.random.key(0))
    arguments = jax.random.normal(keys[0], (8, 16, 16, 8)), jax.random.normal(keys[1], (3, 3, 8, 16))
    program = jax.jit(jax.grad(lambda x, w: jnp.sum(convolve(x, w) ** 2), 1)).lower(*arguments)
    return program.compile(compiler_options=options)(*arguments)


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='the option is for CPUs')
def test_convolutions_are_left_out_of_the_library_and_have_the_same_gradients():
    options = compiler_options()
    if not options:
        pytest.skip('this XLA has no such option')
    assert 'CONVOLUTION' not in options[LIBRARY_CALLS]
    # Sums over 2,048 positions of float32, in another order.
    np.testing.assert_allclose(gradient(options), gradient(None), rtol=1e-4, atol=1e-2)


def test_a_choice_in_the_environment_stays(monkeypatch):
    monkeypatch.setenv('XLA_FLAGS', f'--{LIBRARY_CALLS}=LIBRARY_FUSION_TYPE_DOT')
    assert compiler_options() == {}


def test_a_run_compiles_with_the_options(monkeypatch):
    monkeypatch.setattr(compilation, 'compiler_options', lambda: {'xla_no_such_option': '1'})
    with pytest.raises(jax.errors.JaxRuntimeError, match='No such compile option'):
        compilation.CompiledByShape(jnp.sin)(jnp.ones(()))


@pytest.mark.parametrize(
    ('name', 'value'), [('LIBRARY_CALLS', 'xla_cpu_no_such_option'), ('PRODUCTS_AND_SUMS', 'NO_SUCH_TYPE')]
)
def test_an_xla_without_the_option_compiles_as_it_does(monkeypatch, name, value):
    monkeypatch.setattr(compiler, name, value)
    assert compiler_options() == {}
