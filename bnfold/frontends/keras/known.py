"""Names of what Keras itself brings: everything else in a configuration is somebody's code."""

from __future__ import annotations

__all__ = ["ACTIVATIONS", "CODE", "LAYERS", "MODELS", "PIECES", "TENSORFLOW_FUNCTIONS", "WORDS"]

MODELS = frozenset(["Functional", "Model", "Sequential"])

LAYERS = frozenset(
    """
    AbstractRNNCell Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
    AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention
    AlphaDropout Attention AugMix AutoContrast Average AveragePooling1D AveragePooling2D AveragePooling3D AvgPool1D
    AvgPool2D AvgPool3D BatchNormalization Bidirectional CategoryEncoding CenterCrop Concatenate
    ContrastLimitedAdaptiveHistogramEqualization Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose
    ConvLSTM1D ConvLSTM2D ConvLSTM3D Convolution1D Convolution1DTranspose Convolution2D Convolution2DTranspose
    Convolution3D Convolution3DTranspose Cropping1D Cropping2D Cropping3D CutMix Dense DenseFeatures DepthwiseConv1D
    DepthwiseConv2D Discretization Dot Dropout ELU EinsumDense Embedding Equalization Flatten GRU GRUCell
    GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
    GlobalAvgPool1D GlobalAvgPool2D GlobalAvgPool3D GlobalMaxPool1D GlobalMaxPool2D GlobalMaxPool3D
    GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupQueryAttention HashedCrossing
    Hashing Identity InputLayer IntegerLookup LSTM LSTMCell Layer LayerNormalization LeakyReLU LocallyConnected1D
    LocallyConnected2D Masking MaxNumBoundingBoxes MaxPool1D MaxPool2D MaxPool3D MaxPooling1D MaxPooling2D
    MaxPooling3D Maximum MelSpectrogram Minimum MixUp MultiHeadAttention Multiply Normalization PReLU Permute Pipeline
    RMSNormalization RNN RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast
    RandomCrop RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHeight
    RandomHue RandomInvert RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness
    RandomShear RandomTranslation RandomWidth RandomZoom ReLU RepeatVector Rescaling Reshape Resizing
    ReversibleEmbedding STFTSpectrogram SeparableConv1D SeparableConv2D SeparableConvolution1D SeparableConvolution2D
    SimpleRNN SimpleRNNCell Softmax Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D
    SpectralNormalization StackedRNNCells StringLookup Subtract SyncBatchNormalization TextVectorization
    ThresholdedReLU TimeDistributed UnitNormalization UpSampling1D UpSampling2D UpSampling3D Wrapper ZeroPadding1D
    ZeroPadding2D ZeroPadding3D
    SlicingOpLambda InstanceProperty TFOpLambda
    """.split()
)

# Keras's own, and yet they run code or read files that the configuration names.
CODE = frozenset(
    """
    Lambda __lambda__ TFSMLayer FlaxLayer JaxLayer TorchModuleWrapper TensorFlowOpLayer ClassMethod InstanceMethod
    """.split()
)

# What layers are made of. Older files write these without the module they come from.
PIECES = frozenset(
    """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform IdentityInitializer Initializer LecunNormal LecunUniform
    Ones Orthogonal OrthogonalInitializer RandomNormal RandomUniform STFT STFTInitializer TruncatedNormal
    VarianceScaling Zeros
    L1 L1L2 L2 OrthogonalRegularizer Regularizer
    Constraint MaxNorm MinMaxNorm NonNeg RadialConstraint UnitNorm
    DTypePolicy DTypePolicyMap FloatDTypePolicy Policy PolicyV1 InputSpec TensorShape
    """.split()
)

# Keras's own way of writing values in JSON.
WORDS = frozenset(
    """
    __tensor__ __keras_tensor__ __numpy__ __tuple__ __typespec__ __ellipsis__ __bytes__ __slice__ __complex__ slice
    TypeSpec Ellipsis CompositeTensor TuplesAsLists
    """.split()
)

ACTIVATIONS = frozenset(
    """
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear log_sigmoid
    log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid
    sparsemax squareplus swish tanh tanh_shrink threshold softmax_v2 gelu_v2 leaky_relu_v2
    """.split()
)

# Where a TFOpLambda may find its function: places that only compute.
TENSORFLOW_FUNCTIONS = (
    "math.", "nn.", "linalg.", "image.", "signal.", "__operators__.", "keras.activations.",
    "cast", "reshape", "concat", "stack", "unstack", "split", "transpose", "squeeze", "expand_dims", "tile", "pad",
    "gather", "gather_nd", "slice", "strided_slice", "shape", "zeros_like", "ones_like", "fill", "clip_by_value",
    "where", "reduce_", "one_hot", "identity", "stop_gradient", "broadcast_to", "repeat", "reverse", "roll", "einsum",
    "tensordot", "norm", "argmax", "argmin", "sort", "argsort", "range", "size", "rank", "add", "add_n", "subtract",
    "multiply", "divide", "maximum", "minimum", "abs", "sqrt", "square", "pow", "exp", "sigmoid", "tanh", "round",
    "sign", "negative", "matmul", "equal", "not_equal", "greater", "less", "logical_", "convert_to_tensor", "eye",
    "meshgrid", "boolean_mask", "compat.v1.transpose", "compat.v1.nn.", "compat.v1.math.", "compat.v1.shape",
    "compat.v1.gather", "compat.v1.squeeze", "compat.v1.expand_dims", "compat.v1.image.",
)  # fmt: skip
