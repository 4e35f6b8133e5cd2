"""The LightningDataModule, the LightningModule and the fit loop."""
