"""Names of what Keras itself brings: everything else in a configuration is somebody's code."""

from __future__ import annotations

__all__ = ["ACTIVATIONS", "CODE", "LAYERS", "MODELS", "OPERATIONS", "PIECES", "TENSORFLOW_FUNCTIONS", "WORDS"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


MODELS = _names("Functional Model Sequential")

LAYERS = _names(
    """
    AbstractRNNCell Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
    AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention
    AlphaDropout Attention AugMix AutoContrast Average AveragePooling1D AveragePooling2D AveragePooling3D
    AvgPool1D AvgPool2D AvgPool3D BatchNormalization Bidirectional CategoryEncoding CenterCrop Concatenate
    ContrastLimitedAdaptiveHistogramEqualization Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D
    Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Convolution1D Convolution1DTranspose Convolution2D
    Convolution2DTranspose Convolution3D Convolution3DTranspose Cropping1D Cropping2D Cropping3D CutMix Dense
    DenseFeatures DepthwiseConv1D DepthwiseConv2D Discretization Dot Dropout ELU EinsumDense Embedding
    Equalization Flatten GRU GRUCell GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D
    GlobalAveragePooling3D GlobalAvgPool1D GlobalAvgPool2D GlobalAvgPool3D GlobalMaxPool1D GlobalMaxPool2D
    GlobalMaxPool3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization
    GroupQueryAttention HashedCrossing Hashing Identity InputLayer InstanceProperty IntegerLookup LSTM LSTMCell
    Layer LayerNormalization LeakyReLU LocallyConnected1D LocallyConnected2D Masking MaxNumBoundingBoxes MaxPool1D
    MaxPool2D MaxPool3D MaxPooling1D MaxPooling2D MaxPooling3D Maximum MelSpectrogram Minimum MixUp
    MultiHeadAttention Multiply Normalization PReLU Permute Pipeline RMSNormalization RNN RandAugment
    RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop RandomElasticTransform
    RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHeight RandomHue RandomInvert
    RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear
    RandomTranslation RandomWidth RandomZoom ReLU RepeatVector Rescaling Reshape Resizing ReversibleEmbedding
    STFTSpectrogram SeparableConv1D SeparableConv2D SeparableConvolution1D SeparableConvolution2D SimpleRNN
    SimpleRNNCell SlicingOpLambda Softmax Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D
    SpectralNormalization StackedRNNCells StringLookup Subtract SyncBatchNormalization TFOpLambda
    TextVectorization ThresholdedReLU TimeDistributed UnitNormalization UpSampling1D UpSampling2D UpSampling3D
    Wrapper ZeroPadding1D ZeroPadding2D ZeroPadding3D
    """
)

# Keras's own, and yet they run code or read files that the configuration names.
CODE = _names(
    """
    ClassMethod FlaxLayer InstanceMethod JaxLayer Lambda TFSMLayer TensorFlowOpLayer TorchModuleWrapper __lambda__
    """
)

# What layers are made of. Older files write these without the module they come from.
PIECES = _names(
    """
    Constant Constraint DTypePolicy DTypePolicyMap FloatDTypePolicy GlorotNormal GlorotUniform HeNormal HeUniform
    IdentityInitializer Initializer InputSpec L1 L1L2 L2 LecunNormal LecunUniform MaxNorm MinMaxNorm NonNeg Ones
    Orthogonal OrthogonalInitializer OrthogonalRegularizer Policy PolicyV1 RadialConstraint RandomNormal
    RandomUniform Regularizer STFT STFTInitializer TensorShape TruncatedNormal UnitNorm VarianceScaling Zeros
    """
)

# Keras's own way of writing values in JSON.
WORDS = _names(
    """
    CompositeTensor Ellipsis TuplesAsLists TypeSpec __bytes__ __complex__ __ellipsis__ __keras_tensor__ __numpy__
    __slice__ __tensor__ __tuple__ __typespec__ slice
    """
)

ACTIVATIONS = _names(
    """
    celu elu exponential gelu gelu_v2 glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu
    leaky_relu_v2 linear log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softmax_v2
    softplus softsign sparse_plus sparse_sigmoid sparsemax squareplus swish tanh tanh_shrink threshold
    """
)

# Where a TFOpLambda may find its function: places that only compute. A dot or an underscore at the end
# makes the name stand for all that begin with it.
TENSORFLOW_FUNCTIONS = _names(
    """
    __operators__. abs add add_n argmax argmin argsort boolean_mask broadcast_to cast clip_by_value
    compat.v1.expand_dims compat.v1.gather compat.v1.image. compat.v1.math. compat.v1.nn. compat.v1.shape
    compat.v1.squeeze compat.v1.transpose concat convert_to_tensor divide einsum equal exp expand_dims eye fill
    gather gather_nd greater identity image. keras.activations. less linalg. logical_ math. matmul maximum
    meshgrid minimum multiply negative nn. norm not_equal one_hot ones_like pad pow range rank reduce_ repeat
    reshape reverse roll round shape sigmoid sign signal. size slice sort split sqrt square squeeze stack
    stop_gradient strided_slice subtract tanh tensordot tile transpose unstack where zeros_like
    """
)

# Operations between layers. Those that take functions are not among them.
OPERATIONS = _names(
    """
    Abs Absolute AdaptiveAveragePool AdaptiveMaxPool Add AffineTransform All AllClose Amax Amin Angle Any Append
    Arange Arccos Arccosh Arcsin Arcsinh Arctan Arctan2 Arctanh Argmax Argmin Argpartition Argsort Array ArraySplit
    Average AveragePool BatchNorm BinaryCrossentropy Bincount BitwiseAnd BitwiseInvert BitwiseLeftShift BitwiseNot
    BitwiseOr BitwiseRightShift BitwiseXor BroadcastTo CDist CTCDecode CTCLoss Cast CategoricalCrossentropy Cbrt
    Ceil Celu Cholesky CholeskyInverse Clip Concatenate Conj Conjugate Conv ConvTranspose ConvertToTensor Copy
    Corrcoef Correlate Cos Cosh CountNonzero CropImages Cross Cumprod Cumsum Deg2rad DepthToSpace DepthwiseConv Det
    Diag Diagflat Diagonal Diff Digitize Divide DivideNoNan Dot DotProductAttention Dsplit Dstack Eig Eigh Einsum
    ElasticTransform Elu EmptyLike Equal Erf Erfc Erfinv Exp Exp2 ExpandDims Expm1 ExtractPatches ExtractSequences
    FFT FFT2 Fabs Flip Fliplr Flipud Floor FloorDivide Fmax Fmin Fmod Fold Full FullLike GaussianBlur Gcd Gelu
    Geomspace GetItem Glu Greater GreaterEqual HSVToRGB HardShrink HardSigmoid HardSilu HardTanh Heaviside Histogram
    Hsplit Hstack Hypot I0 IFFT2 IRFFT ISTFT Imag InTopK Inner Inv IsIn Isclose Isfinite Isinf Isnan Isneginf
    Isposinf Isreal Kron LayerNorm Lcm Ldexp LeakyRelu LeftShift Less LessEqual Linspace Log Log10 Log1p Log2
    LogSigmoid LogSoftmax Logaddexp Logaddexp2 Logdet LogicalAnd LogicalNot LogicalOr LogicalXor Logspace Logsumexp
    Lstsq LuFactor MapCoordinates Matmul MatrixRank Max MaxPool Maximum Mean Median Meshgrid Min Minimum Mod Moments
    Moveaxis MultiHot Multiply NanToNum Nanargmax Nanargmin Nancumprod Nancumsum Nanmax Nanmean Nanmedian Nanmin
    Nanpercentile Nanprod Nanquantile Nanstd Nansum Nanvar Ndim Negative Nextafter Nonzero Norm Normalize NotEqual
    OneHot OnesLike Outer PSNR Pad PadImages Percentile PerspectiveTransform Pinv Polar Power Prod Ptp Qr Quantile
    RFFT RGBToGrayscale RGBToHSV RMSNorm Rad2deg Ravel Real Rearrange Reciprocal Relu Relu6 Repeat Reshape Resize
    RightShift Roll Rot90 Round Rsqrt SSIM STFT SVD SaturateCast ScaleAndTranslate Scatter ScatterUpdate
    SearchSorted SegmentMax SegmentMin SegmentProd SegmentReduction SegmentSum Select Selu SeparableConv Sigmoid
    Sign Signbit Silu Sin Sinc Sinh Size Slice SliceUpdate Slogdet SobelEdges SoftShrink Softmax Softplus Softsign
    Solve SolveTriangular Sort SpaceToDepth SparseCategoricalCrossentropy SparsePlus SparseSigmoid Sparsemax Split
    Sqrt Square Squareplus Squeeze Stack Std StopGradient Subtract Sum Swapaxes Take TakeAlongAxis Tan Tanh
    TanhShrink Tensordot Threshold Tile TopK Trace Transpose Trapezoid Tril Triu TrueDivide Trunc Unfold Unique
    UnravelIndex Unstack Vander Var Vdot View ViewAsComplex ViewAsReal Vsplit Vstack Where ZerosLike
    """
)
