#!/bin/sh
# Takes out of an environment what no program reads at run time: the packages' own tests, what one compiles against them,
# debugging symbols, and Arrow's RPC server. 250 of 850 MB of the scan's packages.
# In: the environment's folder. Needs binutils.
set -eu
cd "$1"/lib/python3*/site-packages

# astropy imports the runner of its tests; torch and Triton compile with their headers.
find . -path ./astropy/tests -prune -o -type d -name tests -prune -exec rm -r {} +
rm -rf tornado/test onnx/backend/test pyarrow/include pyarrow/*flight*
find . \( -path ./torch -o -path ./triton -o -path ./nvidia \) -prune \
    -o -type f \( -name '*.[ach]' -o -name '*.[ch]pp' -o -name '*.p[xy][dix]' \) ! -name '*.pyi' -exec rm {} +

# Only what has debugging sections: other libraries were moved about by their makers and must not be touched.
find . -type f -name '*.so' | while read -r library; do
    if readelf --sections --wide "$library" | grep --quiet '\.debug_info'; then
        strip --strip-debug "$library"
    fi
done
