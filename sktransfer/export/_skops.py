"""Names of types for skops."""

#: Types in skops files of this package's estimators, pipelines and stacks, beyond those that skops
#: trusts anyway. Loading them runs no code of the file. Pass it to ``skops.io.load`` as `trusted`.
SKOPS_TRUSTED = (
    "sklearn.utils._bunch.Bunch",
    "sktransfer.augmentation._multiview.MultiViewClassifier",
    "sktransfer.augmentation._multiview.MultiViewRegressor",
    "sktransfer.backbones.Preprocessing",
    "sktransfer.embedder.ImageEmbedder",
    "sktransfer.finetuning._classifier.FineTuneClassifier",
    "sktransfer.finetuning._tuned_backbone.TunedBackbone",
    "sktransfer.heads._classifier.HeadClassifier",
    "sktransfer.heads._regressor.HeadRegressor",
)
