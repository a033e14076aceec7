#!/usr/bin/env bash
# Makes a virtual environment with other people's tools that tests run beside ours: make-environment.sh NAME. Prints
# KEY=VALUE to export. Made once and kept; another list of packages makes another folder.
set -euo pipefail
name=${1:?"name one of: moto gcs mlflow mlflow2 flavors flavors2 tensorboard wandb trackio lightning frameworks torch fuzz schemathesis"}
case $name in
    gcs) packages=("gcp-storage-emulator>=2026.7") ;;
    moto) packages=("moto[server,s3]>=5,<6") ;;
    mlflow) packages=("mlflow>=3.17,<3.18" "scikit-learn" "psycopg[binary]") ;;
    # The last 2.x that a client is likely to have. Its server does not start with today's SQLAlchemy; clients do.
    mlflow2) packages=("mlflow-skinny>=2.22,<2.23" "setuptools<81" "sqlalchemy<2.1" "alembic" "psycopg2-binary" "scikit-learn" "pandas") ;;
    # Every library whose models we know, with its build for the CPU.
    flavors)
        packages=("mlflow>=3.17,<3.18" "scikit-learn" "xgboost" "lightgbm" "onnx" "onnxruntime" "skl2onnx" "torch==2.13.0" "keras" "transformers")
        ;;
    # The same with the last MLflow 2.x, and the libraries as they were in its days where it does not know newer ones.
    flavors2)
        packages=("mlflow-skinny>=2.22,<2.23" "setuptools<81" "pandas<3" "scikit-learn" "xgboost-cpu" "lightgbm" "onnx" "onnxruntime"
            "skl2onnx" "torch==2.13.0" "keras" "transformers<5")
        ;;
    # crc32c makes tensorboardX write large files in bearable time; nothing that reads uses it.
    tensorboard) packages=("tensorboard>=2.18" "tensorboardX>=2.6" "crc32c") ;;
    wandb) packages=("wandb>=0.19") ;;
    trackio) packages=("trackio>=0.10") ;;
    # What the readers of tests/data/sources/fuzz.py import, too.
    fuzz) packages=("atheris>=3" "numpy" "pyyaml") ;;
    # Thinks up requests from a description of the server. Only .ci/long makes it.
    schemathesis) packages=("schemathesis>=4,<5") ;;
    # A gigabyte with torch: only .ci/long makes it.
    lightning) packages=("torch==2.13.0" "lightning>=2.4") ;;
    # Training frameworks that call us: the light ones, and those on PyTorch.
    frameworks) packages=("scikit-learn" "lightgbm") ;;
    torch) packages=("torch==2.13.0" "numpy" "lightning" "transformers" "accelerate" "keras" "xgboost-cpu" "mlflow>=3.17,<3.18") ;;
    *)
        echo "there is no environment '$name'" >&2
        exit 2
        ;;
esac
hash=$(printf '%s\n' "${packages[@]}" | sha256sum | cut -c1-12)
folder=${MLT_ENV_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/mltrack-tests}/$name-$hash
if [ ! -e "$folder/made" ]; then
    mkdir -p "$(dirname "$folder")"
    (
        flock 9
        if [ ! -e "$folder/made" ]; then
            rm -rf "$folder"
            "${MLT_PYTHON:-python3}" -m venv "$folder" >&2
            PIP_DISABLE_PIP_VERSION_CHECK=1 "$folder/bin/pip" install -q "${packages[@]}" >&2
            touch "$folder/made"
        fi
    ) 9>"$folder.lock"
fi
echo "MLT_ENV_${name^^}=$folder/bin/python"
