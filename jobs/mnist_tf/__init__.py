"""The TensorFlow adapter: the only place that imports TensorFlow and Keras."""
