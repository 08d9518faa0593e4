"""How a model's weights are held on a CPU: as float32 copies, or as stored and expanded to multiply."""
