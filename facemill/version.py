"""The version of facemill. It stands alone, since it decides nothing that facemill writes."""

VERSION = "0.1.0"
