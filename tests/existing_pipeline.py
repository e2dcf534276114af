"""A 3D segmentation training as MONAI users write it: transforms, cache, engines, handlers. Nothing of AIDE.

The README switches this script to AIDE by the lines that it shows; ``test_existing_pipeline`` runs it both ways.
"""

import torch
from monai.data import CacheDataset, DataLoader, load_decathlon_datalist
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import (
    CheckpointSaver,
    LrScheduleHandler,
    MeanDice,
    StatsHandler,
    TensorBoardStatsHandler,
    ValidationHandler,
    from_engine,
)
from monai.inferers import SimpleInferer, SlidingWindowInferer
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    EnsureTyped,
    KeepLargestConnectedComponentd,
    LoadImaged,
    Orientationd,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandRotate90d,
    RandShiftIntensityd,
    ScaleIntensityRanged,
    Spacingd,
)
from monai.utils import set_determinism

set_determinism(seed=0)
device = torch.device("cpu")
patch_size = (24, 24, 8)
max_epochs = 4

files = load_decathlon_datalist("data/dataset.json", is_segmentation=True, data_list_key="training")
train_files, val_files = files[:-2], files[-2:]

keys = ["image", "label"]
deterministic = [
    LoadImaged(keys),
    EnsureChannelFirstd(keys),
    Orientationd(keys, axcodes="RAS", labels=None),
    Spacingd(keys, pixdim=(6.0, 6.0, 9.0), mode=("bilinear", "nearest")),
    ScaleIntensityRanged("image", a_min=0, a_max=900, b_min=0.0, b_max=1.0, clip=True),
    CropForegroundd(keys, source_key="image", select_fn=lambda image: image > 0.1, allow_smaller=True),
]
train_transforms = Compose(
    [
        *deterministic,
        RandCropByPosNegLabeld(keys, label_key="label", spatial_size=patch_size, pos=1, neg=1, num_samples=4),
        RandFlipd(keys, prob=0.5, spatial_axis=0),
        RandRotate90d(keys, prob=0.2, max_k=3),
        RandShiftIntensityd("image", offsets=0.1, prob=0.5),
        EnsureTyped(keys),
    ]
)
val_transforms = Compose([*deterministic, EnsureTyped(keys)])

train_data = CacheDataset(train_files, train_transforms, progress=False)
train_loader = DataLoader(train_data, batch_size=2, shuffle=True)
val_data = CacheDataset(val_files, val_transforms, progress=False)
val_loader = DataLoader(val_data, batch_size=1)

network = UNet(3, in_channels=1, out_channels=2, channels=(8, 16, 32), strides=(2, 2), num_res_units=1, norm="batch")
network = network.to(device)
loss = DiceCELoss(to_onehot_y=True, softmax=True)
optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=1e-5)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)

compared = from_engine(["pred", "label"])
current_loss = from_engine(["loss"], first=True)
one_hot = [
    Activationsd("pred", softmax=True),
    AsDiscreted(keys=["pred", "label"], argmax=(True, False), to_onehot=2),
]
evaluator = SupervisedEvaluator(
    device=device,
    val_data_loader=val_loader,
    network=network,
    inferer=SlidingWindowInferer(roi_size=patch_size, sw_batch_size=4, overlap=0.5),
    postprocessing=Compose([*one_hot, KeepLargestConnectedComponentd("pred", applied_labels=[1])]),
    key_val_metric={"val_mean_dice": MeanDice(include_background=False, output_transform=compared)},
    val_handlers=[
        StatsHandler(output_transform=lambda output: None),
        CheckpointSaver(save_dir="run", save_dict={"network": network}, save_key_metric=True),
    ],
)
trainer = SupervisedTrainer(
    device=device,
    max_epochs=max_epochs,
    train_data_loader=train_loader,
    network=network,
    optimizer=optimizer,
    loss_function=loss,
    inferer=SimpleInferer(),
    postprocessing=Compose(one_hot),
    key_train_metric={"train_mean_dice": MeanDice(include_background=False, output_transform=compared)},
    train_handlers=[
        LrScheduleHandler(scheduler, print_lr=False),
        ValidationHandler(interval=1, validator=evaluator),
        StatsHandler(tag_name="train_loss", output_transform=current_loss),
        TensorBoardStatsHandler(log_dir="run", tag_name="train_loss", output_transform=current_loss),
        CheckpointSaver(save_dir="run", save_dict={"network": network, "optimizer": optimizer}, save_final=True),
    ],
)
trainer.run()
