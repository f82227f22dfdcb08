"""Parts that plug into MONAI's trainers and evaluators, and the workflows of the command line."""
