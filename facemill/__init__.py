"""facemill: curated face datasets, face-swap models and converted archives, as a library.

Arrays and tables in, arrays and tables out. Conventions that hold everywhere:

- pictures are RGB uint8, H×W×3, upright;
- coordinates are x, y in pixels, pixel centres at integers; boxes are x0, y0, x1, y1;
- tensors are N×C×H×W in 0…1;
- an affine is a 2×3 float64 matrix that maps picture coordinates to crop coordinates.

Nothing in here knows of Prefect, Dask or DVC: see `tasks` and `flows` for those.
"""
