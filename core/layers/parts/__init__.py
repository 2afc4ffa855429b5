"""What layers are made of: base classes, and rules that several layers share. No layer type is registered here."""
