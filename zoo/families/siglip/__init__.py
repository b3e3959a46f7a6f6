"""SigLIP: two encoders trained by the sigmoid loss, with a scale and a bias."""
