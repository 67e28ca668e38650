"""`python -m facemill.light_training FOLDER --output FILE` trains the light network."""

import sys

from facemill.light_training.train import main

sys.exit(main())
