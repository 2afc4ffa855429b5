#!/bin/sh
# Makes caffe_pb2.py and caffe_pb2.pyi from caffe.proto, with the compiler named below.
#
# That version is chosen, not just old: what it makes loads on every protobuf runtime from 4.25 on, while
# newer compilers make code that needs a runtime at least as new as themselves.
#
# Usage: dtrain/proto/generate.sh     (PYTHON=python3.11 chooses the interpreter, 3.8 to 3.12; needs the package index)
set -eu

COMPILER="grpcio-tools==1.62.3"
root=$(cd "$(dirname "$0")/../.." && pwd)
environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT

"${PYTHON:-python3}" -m venv "$environment"
"$environment/bin/pip" install --quiet "$COMPILER" "setuptools<81"  # this version still imports pkg_resources

# Run from the root, so that the descriptor's file is called dtrain/proto/caffe.proto: another package's
# caffe.proto in the same process is then another file.
cd "$root"
"$environment/bin/python" -m grpc_tools.protoc -I . --python_out=. --pyi_out=. dtrain/proto/caffe.proto
