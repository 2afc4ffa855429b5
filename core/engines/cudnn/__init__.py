"""The engine cudnn: cuDNN's convolutions and normalisations on a GPU, and the engine cupy for what is left."""
