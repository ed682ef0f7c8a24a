"""pip install -e .            to train and run
pip install -e .[export]    and to write ONNX and OpenVINO files
pip install -e .[test]      and to test"""

from setuptools import find_packages, setup

# 93 MB to download, 290 MB installed.
EXPORT = ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5", "openvino>=2025.0"]

setup(
    name="mutual3d",
    version="0.1.0",
    description="One video network, trained once, that runs at any budget (MutualNet for 3D networks)",
    python_requires=">=3.10",
    packages=find_packages(include=["mutual3d", "mutual3d.*"]),
    install_requires=[
        "av>=14",
        "fvcore>=0.1.5",
        "iopath>=0.1.9",
        "matplotlib>=3.7",
        "numpy>=1.26",
        "scikit-learn>=1.4",
        "simplejson>=3.19",
        "torch>=2.4",
        "torchvision>=0.19",
        "tqdm>=4.66",
    ],
    extras_require={
        "decord": ["decord>=0.6"],
        "export": EXPORT,
        "tensorboard": ["tensorboard>=2.14"],
        "test": ["decord>=0.6", "pytest>=8", "pytorchvideo>=0.1.5", "tensorboard>=2.14", *EXPORT],
    },
)
