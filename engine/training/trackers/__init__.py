"""TensorBoard, W&B, MLflow or a tracker of one's own, each in a process of its own behind a bounded pipe."""
